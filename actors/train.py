"""SFT and DPO on Ray Train: shards of a Ray Dataset in, one Hugging Face policy directory out.

A fit waits for all its workers to start, for `trainers.start_timeout_s` at most, and its workers wait for each other at
every step, for `trainers.timeout_s`.
"""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import ray.data
import ray.train
from pyarrow.fs import LocalFileSystem
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.data._internal.stats import get_or_create_stats_actor
from ray.train import CheckpointConfig, DataConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from actors.steps import Steps
from actors.train_worker import Assignment, Task, train_worker
from medcritical_ray.config import TrainersConfig
from medcritical_ray.errors import MedCriticalError, RunFailed, UserError, WaitTimeout
from medcritical_ray.files import atomic_directory, put_in_place
from medcritical_ray.game import OnStep
from medcritical_ray.planning.placement import written
from medcritical_ray.run.tables import count_rows, part_paths, take_rows
from medcritical_ray.store.mirror import Mirror

_POLL_S = 0.2
_GRACE_S = 30.0
_RAY_TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how often workers are asked whether they are done: 2 s a fit less
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per fit, of no use to fits that start again from the start
}


def fit(
    task: Task,
    rows_dir: Path,
    out_dir: Path,
    trainers: TrainersConfig,
    *,
    name: str,
    seed: int,
    on_step: OnStep,
    mirror: Mirror | None = None,
) -> dict[str, Any]:
    """Trains the task's policy on a directory of demonstrations or preference pairs; leaves the result in `out_dir`.

    `name` says whose fit it is, for logs; no two fits share a Ray Train run, whatever their names. `on_step` is shown
    the metrics of each step. With a mirror, workers on other machines fetch the policy, and the result comes back,
    through its store. Returns the figures of `medcritical_ray.training`, of `sft` or `dpo`.

    Raises RunFailed with the cause, WaitTimeout after one of the limits of `trainers`, UserError for what the user can
    mend; then there is no `out_dir`.
    """
    out_dir = out_dir.absolute()
    run_name = f"{name}-{uuid4().hex[:8]}"
    os.environ.update({key: os.environ.get(key, value) for key, value in _RAY_TRAIN_SETTINGS.items()})
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(trainers.answer_timeout_s)
    if trainers.num_workers == 0:
        _quieten_this_process()
    _start_helpers_of_data()
    fits_dir = out_dir.with_name(f".{out_dir.name}.fits")
    with _storage(fits_dir, mirror if trainers.num_workers else None) as storage, closing(Steps(on_step)) as steps:
        assignment = Assignment(
            task=task,
            seed=seed,
            max_tokens_per_forward=trainers.max_tokens_per_forward,
            gradient_checkpointing=trainers.gradient_checkpointing,
            deadline=time.time() + trainers.timeout_s,
            timeout_s=trainers.timeout_s,
            out_dir=out_dir,
            steps=steps.actor,
            mirror=mirror,
            policy_out=None if trainers.num_workers else fits_dir / "policy",
        )
        trainer = TorchTrainer(
            train_worker,  # type: ignore[arg-type]  # what it returns becomes the result's return_value
            train_loop_config={"assignment": assignment},
            datasets=_shards(rows_dir, trainers.num_workers or 1, name),
            dataset_config=DataConfig(datasets_to_split=[]),
            scaling_config=_scaling(trainers),
            run_config=RunConfig(
                name=run_name,
                **storage,
                failure_config=FailureConfig(max_failures=trainers.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # as above
            ),
        )
        return _take_policy(_wait_for(trainer, trainers, name, steps), out_dir)


@contextmanager
def _storage(fits_dir: Path, mirror: Mirror | None) -> Iterator[dict[str, Any]]:
    """Where Ray Train keeps what it must, so that every machine can reach it; nothing of it is left at the end."""
    if mirror is None:
        fits_dir.mkdir(parents=True, exist_ok=True)
        try:
            yield {"storage_path": str(fits_dir)}
        finally:
            shutil.rmtree(fits_dir, ignore_errors=True)
        return
    filesystem, root = mirror.remote.filesystem()
    name = f".fits/{fits_dir.parent.name}-{fits_dir.name.strip('.')}"
    try:
        yield {"storage_path": f"{root}/{name}", "storage_filesystem": filesystem}
    finally:
        with suppress(OSError):  # the training is done, or has failed for a reason of its own
            filesystem.delete_dir(f"{root}/{name}")


def _start_helpers_of_data() -> None:
    """Ray Data's own actors, on this machine. Else they start on that of a worker, when it reads its rows, and outlive
    the training: an autoscaler would never let that machine go."""
    get_or_create_autoscaling_coordinator()
    get_or_create_stats_actor()


def _quieten_this_process() -> None:
    """Where workers train, what Ray Train and Ray Data tell of their progress stays in the workers' logs."""
    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _shards(rows_dir: Path, num_workers: int, name: str) -> dict[str, Any]:
    """One Ray Dataset per worker, named by its rank: rows dealt in turn, equally many give or take one, none left over.

    A question's rows follow one another: dealt in turn, no worker has those of held-out questions alone.
    Ray Train's own split would drop the rows that do not divide evenly, and deal blocks to whichever worker asks first.
    One shard at a time passes through this process: tasks that read them would take longer to start than to read, and
    need CPUs that the workers hold.
    """
    num_rows = count_rows(rows_dir)
    if num_rows < num_workers:
        raise UserError(
            f"{rows_dir} holds {num_rows} training examples, which is too few for trainers.num_workers = {num_workers}"
        )
    parts = part_paths(rows_dir)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        shards = {
            str(rank): ray.data.from_arrow(take_rows(parts, list(range(rank, num_rows, num_workers))))
            for rank in range(num_workers)
        }
    for rank, shard in shards.items():
        shard.set_name(f"{name}-shard-{rank}")
    return shards


def _scaling(trainers: TrainersConfig) -> ScalingConfig:
    """Without workers, Ray Train's local mode."""
    if trainers.num_workers == 0:
        return ScalingConfig(num_workers=0)
    resources = {"CPU": trainers.num_cpus}
    if trainers.num_gpus:
        resources["GPU"] = trainers.num_gpus
    return ScalingConfig(
        num_workers=trainers.num_workers,
        use_gpu=trainers.num_gpus > 0,
        resources_per_worker=resources,
        label_selector=trainers.labels or None,  # type: ignore[call-arg]  # known to version 2 alone, which runs
    )


def _wait_for(trainer: TorchTrainer, trainers: TrainersConfig, name: str, steps: Steps) -> ray.train.Result:
    """The result of the fit, which runs in a daemon thread, since it has no time limit of its own.

    Workers end themselves in time. If they do not, never start, or make no step for too long, what is left of the fit
    ends with the job that started it.
    """
    outcome: Future[ray.train.Result] = Future()
    began = time.monotonic()
    Thread(target=_run, args=(trainer, outcome), daemon=True).start()
    while not outcome.done():
        _check_time(trainers, name, steps, time.monotonic() - began)
        wait([outcome], timeout=_POLL_S)
        steps.show_new()
    steps.show_rest()
    try:
        return outcome.result()
    except TrainingFailedError as error:
        raise RunFailed(f"{name}: {_first_cause(error)}") from error


def _check_time(trainers: TrainersConfig, name: str, steps: Steps, seconds: float) -> None:
    """Raises WaitTimeout if one of the limits is over after so many seconds."""
    workers = f"{name}: {trainers.num_workers} training workers"
    if seconds > trainers.start_timeout_s and not steps.has_started:
        raise WaitTimeout(
            f"{workers} did not start in {trainers.start_timeout_s:g} s: {_lacking(trainers)}: bring such machines, "
            "free them, or raise trainers.start_timeout_s"
        )
    # Those that wait for each other answer Ray Train, and one that stops while it starts anew, it awaits without end.
    if steps.has_started and time.monotonic() > steps.heard_at + trainers.progress_timeout_s:
        raise WaitTimeout(
            f"{workers} made no step for {trainers.progress_timeout_s:g} s: see their logs, or raise "
            "trainers.progress_timeout_s"
        )
    if seconds > trainers.timeout_s + _GRACE_S:
        raise WaitTimeout(
            f"{workers} did not finish in {trainers.timeout_s:g} s: see their logs, or raise trainers.timeout_s"
        )


def _lacking(trainers: TrainersConfig) -> str:
    """What the workers take together, and what the nodes that may hold them have, whoever uses it."""
    there = Counter[str]()
    for node in ray.nodes():
        if node["Alive"] and trainers.labels.items() <= node["Labels"].items():
            there.update(node["Resources"])
    needed = {"CPU": trainers.num_workers * trainers.num_cpus, "GPU": trainers.num_workers * trainers.num_gpus}
    where = f" on nodes labelled {written(trainers.labels)} (trainers.labels)" if trainers.labels else ""
    told = (f"{number:g} {what}s needed, {there[what]:g} there" for what, number in needed.items() if number)
    return ", ".join(told) + where


def _run(trainer: TorchTrainer, outcome: "Future[ray.train.Result]") -> None:
    try:
        outcome.set_result(trainer.fit())
    except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
        outcome.set_exception(error)


def _first_cause(error: TrainingFailedError) -> str:
    """The last line of the first worker's traceback, which names the exception, or the error's own first line."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        rank, failure = min(error.worker_failures.items())
        return f"worker {rank}: {str(failure).strip().splitlines()[-1]}"
    return str(error).strip().splitlines()[-1]


def _take_policy(result: ray.train.Result, out_dir: Path) -> dict[str, Any]:
    """Moves the checkpoint to `out_dir`, in place of what an earlier fit left there, and returns rank 0's figures."""
    figures = result.return_value  # type: ignore[attr-defined]  # known to version 2 alone, which runs
    if isinstance(figures, MedCriticalError):
        raise figures
    assert isinstance(figures, dict)
    assert result.checkpoint is not None
    if out_dir.exists():
        shutil.rmtree(out_dir)
    if isinstance(result.checkpoint.filesystem, LocalFileSystem):
        put_in_place(Path(result.checkpoint.path), out_dir)
    else:
        with atomic_directory(out_dir) as directory:
            result.checkpoint.to_directory(directory)
    return figures
