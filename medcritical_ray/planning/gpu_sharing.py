"""Which engines and training workers may come to lie on one GPU, how large it must be then, and how many it takes.

Ray reserves shares of GPUs, but bounds nobody's memory: where `num_gpus` is below 1, memory has to add up by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medcritical_ray.config import Config
from medcritical_ray.planning.gpu_memory import EngineMemory, TrainerMemory
from medcritical_ray.planning.placement import exclude_each_other

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuUse:
    """Engines and training workers on one GPU."""

    num_engines: int
    num_workers: int

    def least_gpu_gib(
        self, engine: EngineMemory | None, trainer: TrainerMemory | None, num_sequences: float = 1
    ) -> float:
        """The memory of the smallest GPU that carries them, with room for this many sequences in each engine's cache;
        infinite if the engines leave nothing for the workers."""
        alone = engine.needed_gib(num_sequences) / engine.gpu_share if engine and self.num_engines else 0.0
        left = 1 - self.num_engines * engine.gpu_share if engine else 1.0
        workers = self.num_workers * trainer.needed_gib if trainer else 0.0
        if left < -_ROUNDING or (workers and left < _ROUNDING):
            return math.inf
        return max(alone, workers / left if workers else 0.0)


def gpu_uses(config: Config) -> list[GpuUse]:
    """The ways in which a GPU can be taken as far as Ray lets it: whole ones by one process, shares by several, and by
    engines and training workers together only where their labels allow one node to hold both."""
    engines, trainers = config.engines, config.trainers
    most_engines = _most(engines.num_engines + engines.separate_corrector, engines.num_gpus, 1.0)
    uses = []
    for number in range(most_engines + 1):
        free = 0.0 if number and _are_apart(config) else 1.0 - number * min(engines.num_gpus, 1.0)
        workers = _most(trainers.num_workers, trainers.num_gpus, free)
        uses.append(GpuUse(num_engines=number, num_workers=workers))
    return [use for use in uses if use.num_engines or use.num_workers]


def num_gpus(config: Config) -> int:
    """How many GPUs have room for the engines, then for the training workers."""
    engines, trainers = config.engines, config.trainers
    engine_shares = (engines.num_engines + engines.separate_corrector) * [engines.num_gpus]
    trainer_shares = trainers.num_workers * [trainers.num_gpus]
    if _are_apart(config):
        return gpus_for(engine_shares) + gpus_for(trainer_shares)
    return gpus_for(engine_shares + trainer_shares)


def gpus_for(shares: Sequence[float]) -> int:
    """How many GPUs have room for processes of these shares: each lies on the first where enough of it is free, since
    nobody's share is split over two."""
    taken: list[float] = []
    for share in shares:
        first = next((i for i, others in enumerate(taken) if others + share < 1 + _ROUNDING), None)
        if first is not None:
            taken[first] += share
        else:
            taken += [min(share, 1.0)] * math.ceil(share)
    return len(taken)


def _are_apart(config: Config) -> bool:
    return exclude_each_other(config.engines.labels, config.trainers.labels)


def _most(there: int, num_gpus: float, free: float) -> int:
    """How many processes of `num_gpus` each fit into what is free of one GPU."""
    return min(there, int(free / min(num_gpus, 1.0) + _ROUNDING)) if num_gpus else 0
