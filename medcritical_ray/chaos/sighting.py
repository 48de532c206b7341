"""What can be seen of a run from outside, and whether it has recovered from a kill."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from medcritical_ray.chaos.schedule import Kill, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """One look. Processes have their numbers as names, nodes Ray's; times are seconds as `time.time()` gives them.

    `working` has, by target, those that can do their work, and since when they were seen to: engines not before they
    have started. `present` are all that are there, stopped ones too. `position` is that of the phase under way among
    the run's phases, which it was seen in for `phase_seconds`. `wrote_at` is when the run last kept rows, a training
    step or the end of a phase.
    """

    time: float
    working: Mapping[Target, Mapping[str, float]]
    present: Set[str]
    position: int
    phase_seconds: float
    wrote_at: float
    is_finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """A kill that was sent: to whom, and how the run looked just before."""

    kill: Kill
    victim: str
    before: Sighting


def has_recovered(strike: Strike, now: Sighting) -> bool:
    """Whether the victim is gone, as many as before are at work, and the run has got on, by rows, a step or a phase,
    since the last that came began to.

    A training that has ended needs no new worker, and a run that is finished needs nobody.
    """
    target, before = strike.kill.target, strike.before
    if now.is_finished or (target == "train_worker" and now.position > before.position):
        return True
    working = now.working[target]
    came = [since for since in working.values() if since > before.time]
    is_replaced = strike.victim not in now.present and len(working) >= len(before.working[target])
    return is_replaced and bool(came) and now.wrote_at > max(came)
