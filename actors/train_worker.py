"""What each worker of a Ray Train fit does: take its shard, train together with the others, and save the policy."""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.torch

from medcritical_ray.config import DpoConfig, SftConfig
from medcritical_ray.errors import MedCriticalError, StorageFailed, WaitTimeout
from medcritical_ray.files import stored
from medcritical_ray.records import Demonstration, PreferencePair
from medcritical_ray.store.mirror import Mirror
from medcritical_ray.store.node_copies import bring_whole

if TYPE_CHECKING:
    from medcritical_ray.training.prepare import Prepared

_GRACE_S = 30.0


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
"""The policy that a training starts from, DPO's reference, and how it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What the workers of a fit are told. `deadline` is a time as `time.time()` gives it, `timeout_s` after the start;
    the policy is meant for `out_dir`. Rank 0 tells the actor `steps` that it has started, and hands it the metrics of
    each step. Policies that are not on a worker's machine are fetched by `mirror`. What a fit without workers trains is
    left in `policy_out`: nobody takes it from there while the training ends."""

    task: Task
    seed: int
    max_tokens_per_forward: int
    gradient_checkpointing: bool
    deadline: float
    timeout_s: float
    out_dir: Path
    steps: Any
    mirror: Mirror | None = None
    policy_out: Path | None = None


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

    if ray.train.get_context().get_world_rank() == 0:
        assignment.steps.start.remote()
    prepared = together(lambda: _prepare(assignment))
    model = ray.train.torch.prepare_model(prepared.model)
    with _steps_writer(assignment) as on_step:
        figures = prepared.train(model, on_step)
    with nullcontext(assignment.policy_out) if assignment.policy_out else tempfile.TemporaryDirectory() as directory:
        checkpoint = together(lambda: _save(prepared, Path(directory)))
        with stored(assignment.out_dir):  # where the checkpoint is copied to; the other workers do not wait for that
            ray.train.report(figures["last_step"], checkpoint=checkpoint)
    return figures


def _prepare(assignment: Assignment) -> "Prepared":
    from transformers.utils.logging import disable_progress_bar

    from medcritical_ray.training.prepare import Limits, prepare_dpo, prepare_sft

    disable_progress_bar()  # transformers' bars would stand between the lines of a run's own
    limits = Limits(
        seed=assignment.seed,
        max_tokens_per_forward=assignment.max_tokens_per_forward,
        gradient_checkpointing=assignment.gradient_checkpointing,
    )
    device = ray.train.torch.get_device()
    task, rows = assignment.task, _shard()
    bring_whole(task.policy_dir, assignment.mirror)
    if isinstance(task, SftTask):
        demonstrations = [Demonstration(**row) for row in rows]
        return prepare_sft(task.policy_dir, demonstrations, task.config, limits, device)
    if task.reference_dir != task.policy_dir:
        bring_whole(task.reference_dir, assignment.mirror)
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
    handed_over: list[Any] = []

    def on_step(metrics: dict[str, float]) -> None:
        if is_first:
            handed_over[:] = [assignment.steps.add.remote(metrics)]
        if any_worker(time.time() > assignment.deadline, device):
            raise WaitTimeout(
                f"training was at step {metrics['step']:.0f} of {metrics['num_steps']:.0f} after "
                f"{assignment.timeout_s:g} s: raise trainers.timeout_s"
            )

    yield on_step
    ray.wait(handed_over, timeout=_GRACE_S)  # calls of one caller arrive in their order


def _save(prepared: "Prepared", directory: Path) -> ray.train.Checkpoint | None:
    """The policy, on one worker: all hold the same weights. Raises StorageFailed if the disk does not take it."""
    from safetensors import SafetensorError

    from medcritical_ray.training.models import save_policy

    if ray.train.get_context().get_world_rank() != 0:
        return None
    try:
        save_policy(prepared.model, prepared.tokenizer, directory)
    except (OSError, SafetensorError) as error:
        raise StorageFailed(f"{directory} cannot be written on {socket.gethostname()}: {error}") from error
    return ray.train.Checkpoint.from_directory(directory)
