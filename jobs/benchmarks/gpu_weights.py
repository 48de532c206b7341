"""Full weights of a 7B architecture into engines on GPUs, one on each: as they are read, and by NCCL.

Not yet run on a GPU.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jobs.benchmarks.figures import Figure, Goal, NotMeasured
from jobs.benchmarks.gpu_training import ARCHITECTURE
from jobs.benchmarks.weights import random_policy

NAME = "full weights of a 7B architecture into an engine on each GPU"
READ = Goal(name=NAME, unit="GB/s", peer="copies of pinned memory to each GPU in turn")
NCCL = Goal(name=f"{NAME}, by NCCL", unit="GB/s", peer="read by each")
COPIED_BYTES = 2**30


def measure(repeats: int, scratch: Path) -> Sequence[Figure | NotMeasured]:
    """Bytes that all engines take in a second, from the call until all have confirmed."""
    import torch

    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return [NotMeasured(goal=goal, why="no GPU") for goal in (READ, NCCL)]
    policy = random_policy(scratch, ARCHITECTURE)
    read = _rates("object_store", policy, num_gpus, repeats)
    copied = [_copied(num_gpus) for _ in range(repeats)]
    figure = Figure(goal=READ, ours_each=read, peer_each=copied)
    if num_gpus == 1:
        return [figure, NotMeasured(goal=NCCL, why="one GPU alone")]
    return [figure, Figure(goal=NCCL, ours_each=_rates("nccl", policy, num_gpus, repeats), peer_each=read)]


def _rates(way: Literal["object_store", "nccl"], policy: Path, num_gpus: int, repeats: int) -> list[float]:
    """GB/s of each broadcast but the first, which warms up."""
    from actors.cluster import connected
    from actors.pool import EnginePool
    from medcritical_ray.config import ClusterConfig, EnginesConfig
    from medcritical_ray.model_files import weight_files

    num_bytes = num_gpus * sum(file.stat().st_size for file in weight_files(policy))
    engines = EnginesConfig(num_engines=num_gpus, num_gpus=1, max_model_len=256, weight_transfer=way)
    rates = []
    with (
        connected(ClusterConfig(object_store_mib=2000), policy.parent),
        EnginePool(engines, 0, policy, name=f"gpu-weights-{way}") as pool,
    ):
        for version in range(1, repeats + 2):
            started = time.perf_counter()
            pool.broadcast(version, policy)
            rates.append(num_bytes / (time.perf_counter() - started) / 1e9)
    return rates[1:]


def _copied(num_gpus: int) -> float:
    """GB/s, as fast as the links are."""
    import torch

    here = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = [torch.empty_like(here, device=f"cuda:{index}") for index in range(num_gpus)]
    started = time.perf_counter()
    for each in there:
        each.copy_(here)
        torch.cuda.synchronize(each.device)
    return num_gpus * COPIED_BYTES / (time.perf_counter() - started) / 1e9
