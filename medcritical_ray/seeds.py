"""Seeds that depend on what is sampled and on nothing else, so that any row can be sampled again and come out the same.

A key is written as a JSON list, which no two different keys share, and hashed with BLAKE2b (RFC 7693).
"""

import json
from hashlib import blake2b

from medcritical_ray.records import Task


def derive_seed(run_seed: int, iteration: int, question_id: str, task: Task, attempt: int, sample: int) -> int:
    """The sampling seed of one trajectory of a run, in [0, 2**31): what every sampler takes as a seed."""
    return _hash("seed", run_seed, iteration, question_id, task, attempt, sample) >> 33


def uniform(*key: str | int) -> float:
    """A number in [0, 1) that is drawn by the key alone: `uniform(...) < share` takes the same share on every run."""
    return (_hash("uniform", *key) >> 11) / 2**53


def _hash(*key: str | int) -> int:
    """64 bits."""
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big")
