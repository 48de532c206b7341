"""Full weights of a 7B architecture into engines on GPUs, one on each: as they are read, and by NCCL.

Not yet run on a GPU.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jobs.benchmarks.figures import Figure, Goal, NotMeasured, in_turn
from jobs.benchmarks.gpu_training import ARCHITECTURE
from jobs.benchmarks.weights import random_policy

NAME = "full weights of a 7B architecture into an engine on each GPU"
READ = Goal(name=NAME, unit="GB/s", peer="copies of pinned memory to all of them at once")
NCCL = Goal(name=f"{NAME}, by NCCL", unit="GB/s", peer="the same copies")
COPIED_BYTES = 2**28


def measure(repeats: int, scratch: Path) -> Sequence[Figure | NotMeasured]:
    """Bytes that all engines take in a second, from the call until all have confirmed."""
    import torch

    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return [NotMeasured(goal=goal, why="no GPU") for goal in (READ, NCCL)]
    policy = random_policy(scratch, ARCHITECTURE)
    read = _figure(READ, "object_store", policy, num_gpus, repeats)
    if num_gpus == 1:
        return [read, NotMeasured(goal=NCCL, why="one GPU alone")]
    return [read, _figure(NCCL, "nccl", policy, num_gpus, repeats)]


def _figure(goal: Goal, way: Literal["object_store", "nccl"], policy: Path, num_gpus: int, repeats: int) -> Figure:
    """The first broadcast and the first copy, which warm up, are not counted."""
    from actors.cluster import connected
    from actors.pool import EnginePool
    from medcritical_ray.config import ClusterConfig, EnginesConfig
    from medcritical_ray.model_files import weight_files

    num_bytes = num_gpus * sum(file.stat().st_size for file in weight_files(policy))
    engines = EnginesConfig(num_engines=num_gpus, num_gpus=1, max_model_len=256, weight_transfer=way)
    with (
        connected(ClusterConfig(object_store_mib=2000), policy.parent),
        EnginePool(engines, 0, policy, name=f"gpu-weights-{way}") as pool,
    ):

        def broadcast() -> float:
            started = time.perf_counter()
            pool.broadcast(pool.version + 1, policy)
            return num_bytes / (time.perf_counter() - started) / 1e9

        ours, copied = in_turn(repeats + 1, broadcast, lambda: _copied(num_gpus))
    return Figure(goal=goal, ours_each=ours[1:], peer_each=copied[1:])


def _copied(num_gpus: int) -> float:
    """GB/s, as fast as the links are."""
    import torch

    here = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = [torch.empty_like(here, device=f"cuda:{index}") for index in range(num_gpus)]
    started = time.perf_counter()
    for each in there:
        each.copy_(here, non_blocking=True)
    for each in there:
        torch.cuda.synchronize(each.device)
    return num_gpus * COPIED_BYTES / (time.perf_counter() - started) / 1e9
