"""Whether a run on disk is whole: hashes, rows, markers, the chain of policies, events.

What a run has yet to do is not wrong with it, so that one in progress can be looked at, too.
"""

from medcritical_ray.run.verification.inspection import Fault, Verification
from medcritical_ray.run.verification.whole import verify_run

__all__ = ["Fault", "Verification", "verify_run"]
