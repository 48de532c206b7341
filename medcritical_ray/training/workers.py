"""The workers that train one model together, if there are several: those of torch.distributed's default group."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from medcritical_ray.errors import MedCriticalError, UserError

Result = TypeVar("Result")


def num_workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_workers(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each value over all workers. Every worker must call this, with as many values.

    `device` is where the workers' back end wants its tensors. It waits for the slowest worker, as long as the back
    end's own limit.
    """
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums.tolist()


def gather_over_workers(value: float, device: torch.device) -> list[float]:
    """The value of each worker. Every worker must call this."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    return sum_over_workers([value if worker == rank else 0.0 for worker in range(num_workers())], device)


def steps_per_epoch(num_examples: int, batch_size: int, config_part: str, device: torch.device) -> int:
    """How many steps every worker takes, given how many examples this one has and the batch size over all workers.

    Each worker deals its own examples to that many steps, so that none is left over. Raises UserError if a worker has
    no example.
    """
    counts = gather_over_workers(num_examples, device)
    if min(counts) == 0:
        raise UserError(
            f"{config_part}: {sum(counts):.0f} examples for {len(counts)} workers, one of which has none: raise "
            f"{config_part}.max_length_tokens if rows were too long, else lower trainers.num_workers (or, of pairs, "
            "dpo.held_out_share)"
        )
    return min(math.ceil(sum(counts) / batch_size), int(min(counts)))


def any_worker(condition: bool, device: torch.device) -> bool:
    """Whether the condition holds on any worker. Every worker must call this."""
    return sum_over_workers([float(condition)], device)[0] > 0


def together(prepare: Callable[[], Result]) -> Result:
    """What `prepare` gives, if it raises none of our errors on any worker; else the first such error, on every worker.

    A worker that went on alone would wait for the others for ever. Every worker must call this.
    """
    result, error = None, None
    try:
        result = prepare()
    except MedCriticalError as raised:
        error = raised
    errors: list[MedCriticalError | None] = [error] * num_workers()
    if dist.is_initialized():
        dist.all_gather_object(errors, error)
    for raised_somewhere in errors:
        if raised_somewhere is not None:
            raise raised_somewhere
    return cast(Result, result)
