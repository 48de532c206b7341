"""The readings of a run for TensorBoard, Weights & Biases or MLflow, whichever `run.tracker` names.

The library is imported only if it is asked for. Each run continues its own curves when it is resumed.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from medcritical_ray.config import RunConfig
from medcritical_ray.config.data import TrackerName
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.telling.audience import Listener
from medcritical_ray.telling.metrics import Reading
from medcritical_ray.telling.readings import phase_readings, step_readings, tracked

_PROJECT = "medcritical"
_MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"
_MLFLOW_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Seconds and retries of a request. A server that is gone must not hold up a run for the minutes of its defaults."""
_MODULES: dict[TrackerName, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow-skinny"),
}
"""Tracker -> the module to import and the package that brings it."""


class Tracker(Protocol):
    def log(self, values: dict[str, float], axis: str, step: int) -> None:
        """Adds one point to each curve at `step` of the axis, which counts iterations or one training's steps."""
        ...

    def close(self) -> None: ...


class TrackerListener(Listener):
    """Has a tracker draw what phases and training steps come to."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        self._log(phase_readings(iteration, phase, result), phase, "iteration", iteration)

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        training = f"{phase}_{iteration:03d}"
        self._log(step_readings(iteration, phase, metrics), training, f"{training}/step", int(metrics["step"]))

    def _log(self, readings: Sequence[Reading], group: str, axis: str, step: int) -> None:
        self._tracker.log(tracked(group, readings), axis, step)


def check_tracker(config: RunConfig) -> None:
    """Raises UserError if the tracker's package is missing, or if MLflow does not know where to."""
    if config.tracker is None:
        return
    module, package = _MODULES[config.tracker]
    if find_spec(module) is None:
        raise UserError(f'run.tracker = "{config.tracker}": {module} is not installed: pip install {package}')
    if config.tracker == "mlflow" and not os.environ.get(_MLFLOW_ADDRESS):
        # Files, MLflow's default without a database, are refused by its newer versions.
        raise UserError(
            f'run.tracker = "mlflow": {_MLFLOW_ADDRESS} is not set: name a server, as http://localhost:5000, or a '
            "database, as sqlite:////home/me/mlflow.db"
        )


@contextmanager
def open_tracker(config: RunConfig, run: RunDirectory) -> Iterator[TrackerListener | None]:
    """A listener for the configured tracker, None if there is none. Raises UserError if it refuses to start."""
    if config.tracker is None:
        yield None
        return
    kinds: dict[TrackerName, Callable[[Path, str, str], Tracker]] = {
        "tensorboard": _TensorBoard,
        "wandb": _WandB,
        "mlflow": _MLflow,
    }
    run_id = f"{config.name}-{run.record().created:%Y%m%d-%H%M%S}"
    try:
        tracker = kinds[config.tracker](run.path, config.name, run_id)
    except Exception as error:  # each library has errors of its own, of which none is ours to mend
        raise UserError(f'run.tracker = "{config.tracker}" does not start: {error}') from error
    try:
        yield TrackerListener(tracker)
    finally:
        _close(tracker, run)


def _close(tracker: Tracker, run: RunDirectory) -> None:
    try:
        tracker.close()
    except Exception as error:  # noqa: BLE001  # the run itself has ended well
        run.append_event("listener failed", listener="tracker", cause=repr(error))


class _TensorBoard:
    """Event files in the run's directory: `tensorboard --logdir runs`."""

    def __init__(self, directory: Path, name: str, run_id: str) -> None:
        from tensorboardX import SummaryWriter

        # A process that starts within the second of an earlier one must not write over its file.
        self._writer = SummaryWriter(
            str(directory / "tensorboard"), flush_secs=10, filename_suffix=f".{time.time_ns()}"
        )

    def log(self, values: dict[str, float], axis: str, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Where the library's own settings say, such as WANDB_MODE=offline; files lie in the run's directory."""

    def __init__(self, directory: Path, name: str, run_id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=name, id=run_id, resume="allow", dir=directory
        )

    def log(self, values: dict[str, float], axis: str, step: int) -> None:
        for name in values:
            self._run.define_metric(name, step_metric=axis)
        self._run.log({**values, axis: step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """Where MLFLOW_TRACKING_URI says; a resumed run goes on in the run that it had there, told by a tag."""

    def __init__(self, directory: Path, name: str, run_id: str) -> None:
        for name, value in _MLFLOW_LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client = MlflowClient(os.environ[_MLFLOW_ADDRESS])
        experiment = self._client.get_experiment_by_name(_PROJECT)
        where = experiment.experiment_id if experiment else self._client.create_experiment(_PROJECT)
        known = self._client.search_runs([where], f"tags.medcritical_run = '{run_id}'")
        run = known[0] if known else self._client.create_run(where, tags={"medcritical_run": run_id}, run_name=name)
        self._run_id = run.info.run_id

    def log(self, values: dict[str, float], axis: str, step: int) -> None:
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        self._client.log_batch(self._run_id, [Metric(name, value, now_ms, step) for name, value in values.items()])

    def close(self) -> None:
        self._client.set_terminated(self._run_id)
