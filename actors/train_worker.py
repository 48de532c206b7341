"""What each worker of a Ray Train fit does: take its shard, train together with the others, and save the policy."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.torch

from medcritical_ray.config import DpoConfig, SftConfig
from medcritical_ray.errors import MedCriticalError, WaitTimeout
from medcritical_ray.records import Demonstration, PreferencePair

if TYPE_CHECKING:
    from medcritical_ray.training.prepare import Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class SftTask:
    policy_dir: Path
    config: SftConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DpoTask:
    policy_dir: Path
    reference_dir: Path
    config: DpoConfig


Task = SftTask | DpoTask


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What the workers of a fit are told. `deadline` is a time as `time.time()` gives it, `timeout_s` after the start;
    rank 0 writes the metrics of each step to a file in `run_dir` (see `steps_files`), a JSON object per line."""

    task: Task
    seed: int
    max_tokens_per_forward: int
    gradient_checkpointing: bool
    deadline: float
    timeout_s: float
    run_dir: Path


def steps_files(run_dir: Path) -> list[Path]:
    """One for each time that the training has started, in order."""
    return sorted(run_dir.glob("steps-*.jsonl"))


def train_worker(settings: dict[str, Assignment]) -> dict[str, Any] | MedCriticalError:
    """The figures of the training; the policy is the fit's checkpoint.

    An error of our own comes about on all workers alike, and is returned: raised, it would count as a failed machine,
    and the same training would start again to end the same way.
    """
    assignment = settings["assignment"]
    try:
        return _train(assignment)
    except MedCriticalError as error:
        return error


def _train(assignment: Assignment) -> dict[str, Any]:
    from medcritical_ray.training.workers import together

    prepared = together(lambda: _prepare(assignment))
    model = ray.train.torch.prepare_model(prepared.model)
    with _steps_writer(assignment) as on_step:
        figures = prepared.train(model, on_step)
    ray.train.report(figures["last_step"], checkpoint=_save(prepared, assignment.run_dir / "policy"))
    return figures


def _prepare(assignment: Assignment) -> "Prepared":
    from medcritical_ray.training.prepare import Limits, prepare_dpo, prepare_sft

    limits = Limits(
        seed=assignment.seed,
        max_tokens_per_forward=assignment.max_tokens_per_forward,
        gradient_checkpointing=assignment.gradient_checkpointing,
    )
    device = ray.train.torch.get_device()
    task, rows = assignment.task, _shard()
    if isinstance(task, SftTask):
        demonstrations = [Demonstration(**row) for row in rows]
        return prepare_sft(task.policy_dir, demonstrations, task.config, limits, device)
    pairs = [PreferencePair(**row) for row in rows]
    return prepare_dpo(task.policy_dir, task.reference_dir, pairs, task.config, limits, device)


def _shard() -> Iterator[dict[str, Any]]:
    """The rows of this worker, which the fit has put into a dataset named by its rank."""
    rank = ray.train.get_context().get_world_rank()
    yield from ray.train.get_dataset_shard(str(rank)).iter_rows()


@contextmanager
def _steps_writer(assignment: Assignment) -> Iterator[Callable[[dict[str, float]], None]]:
    from medcritical_ray.training.workers import any_worker

    device = ray.train.torch.get_device()
    is_first = ray.train.get_context().get_world_rank() == 0
    path = assignment.run_dir / f"steps-{time.time_ns()}.jsonl"
    with path.open("x", encoding="utf-8") if is_first else nullcontext() as file:

        def on_step(metrics: dict[str, float]) -> None:
            if file is not None:
                print(json.dumps(metrics), file=file, flush=True)
            if any_worker(time.time() > assignment.deadline, device):
                raise WaitTimeout(
                    f"training was at step {metrics['step']:.0f} of {metrics['num_steps']:.0f} after "
                    f"{assignment.timeout_s:g} s: raise trainers.timeout_s"
                )

        yield on_step


def _save(prepared: "Prepared", directory: Path) -> ray.train.Checkpoint | None:
    """The policy, on one worker: all hold the same weights."""
    from medcritical_ray.training.models import save_policy

    if ray.train.get_context().get_world_rank() != 0:
        return None
    save_policy(prepared.model, prepared.tokenizer, directory)
    return ray.train.Checkpoint.from_directory(directory)
