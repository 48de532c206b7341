"""Trackers: TensorBoard for real; MLflow, whose packages contradict ours, by a fake of its client."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fakes import SmallRun, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medcritical_ray.config import RunConfig
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import check_resumable, new_record
from medcritical_ray.telling import trackers
from medcritical_ray.telling.trackers import check_tracker, open_tracker

PAIRED = {"pairs": {"own": 5}, "seconds": 2.5}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    with SmallRun(tmp_path, small_config()).open().run as directory:
        return directory


def tell(tracker: str, run: RunDirectory, loss: float = 0.5) -> None:
    """One training step and one phase, as a process of the run would."""
    with open_tracker(RunConfig(name="small", tracker=tracker), run) as listener:
        assert listener
        listener.step(1, "train", {"step": 7.0, "num_steps": 8.0, "loss": loss})
        listener.finish_phase(1, "pair", 2.5, PAIRED)


def test_tensorboard_reads_the_curves_of_a_run_and_of_its_resumption(run: RunDirectory):
    tell("tensorboard", run, loss=0.5)
    tell("tensorboard", run, loss=0.25)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    curves = {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert curves == {
        "train_001/training_step": [(7, 7.0), (7, 7.0)],
        "train_001/training_steps": [(7, 8.0), (7, 8.0)],
        "train_001/training_loss": [(7, 0.5), (7, 0.25)],
        "pair/phase_seconds": [(1, 2.5), (1, 2.5)],
        "pair/pairs/own": [(1, 5.0), (1, 5.0)],
    }


def test_a_run_without_a_tracker_writes_nothing(run: RunDirectory):
    before = sorted(run.path.iterdir())
    check_tracker(RunConfig())
    with open_tracker(RunConfig(), run) as listener:
        assert listener is None
    assert sorted(run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("tracker", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow-skinny")]
)
def test_a_tracker_that_is_not_installed_is_the_users_to_mend(
    tracker: str, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf'^run\.tracker = "{tracker}": \w+ is not installed: pip install {package}$'):
        check_tracker(RunConfig(tracker=tracker))


def test_a_tracker_may_be_chosen_on_resume():
    old, new = (new_record({"run": {"tracker": name}}, {}, {}) for name in (None, "tensorboard"))
    assert check_resumable(old, new) == ['run.tracker: not set -> "tensorboard"']


class FakeMlflowClient:
    """As much of mlflow.MlflowClient as is called; what was logged outlives a client, as it does on a server."""

    experiments: dict[str, str]
    runs: dict[str, dict[str, str]]
    logged: list[tuple[str, str, float, int]]
    uris: list[str]
    ended: list[str]

    def __init__(self, tracking_uri: str) -> None:
        self.uris.append(tracking_uri)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, "7")

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> list[Any]:
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run_id))
            for run_id, tags in self.runs.items()
            if filter_string == f"tags.medcritical_run = '{tags['medcritical_run']}'"
        ]

    def create_run(self, experiment_id: str, tags: dict[str, str], run_name: str) -> Any:
        self.runs[f"run-{len(self.runs)}"] = tags
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{len(self.runs) - 1}"))

    def log_batch(self, run_id: str, metrics: list[tuple[str, float, int, int]]) -> None:
        self.logged += [(run_id, key, value, step) for key, value, _, step in metrics]

    def set_terminated(self, run_id: str) -> None:
        self.ended.append(run_id)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[FakeMlflowClient]:
    class Client(FakeMlflowClient):
        experiments, runs, logged, uris, ended = {}, {}, [], [], []

    module = ModuleType("mlflow")
    module.MlflowClient = Client
    entities = ModuleType("mlflow.entities")
    entities.Metric = lambda key, value, timestamp, step: (key, value, timestamp, step)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    return Client


def test_mlflow_gets_one_run_for_all_processes_of_ours_with_a_step_for_each_value(
    run: RunDirectory, mlflow: type[FakeMlflowClient]
):
    tell("mlflow", run)
    tell("mlflow", run)
    assert list(mlflow.runs) == ["run-0"]
    assert mlflow.logged[2:5] == [
        ("run-0", "train_001/training_loss", 0.5, 7),
        ("run-0", "pair/phase_seconds", 2.5, 1),
        ("run-0", "pair/pairs/own", 5, 1),
    ]
    assert mlflow.ended == ["run-0", "run-0"]
    assert mlflow.uris == ["http://localhost:5000"] * 2


def test_mlflow_is_not_asked_without_an_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r'^run\.tracker = "mlflow": MLFLOW_TRACKING_URI is not set: name a server'):
        check_tracker(RunConfig(tracker="mlflow"))


def test_a_run_of_the_same_name_that_was_created_later_is_another_run_to_a_tracker(
    run: RunDirectory, mlflow: type[FakeMlflowClient], monkeypatch: pytest.MonkeyPatch
):
    tell("mlflow", run)
    later = run.record().model_copy(update={"created": datetime(2099, 1, 1, tzinfo=UTC)})
    monkeypatch.setattr(RunDirectory, "record", lambda self: later)
    tell("mlflow", run)
    assert list(mlflow.runs) == ["run-0", "run-1"]


def test_a_tracker_that_is_gone_at_the_end_is_an_event_of_the_run(run: RunDirectory, mlflow: type[FakeMlflowClient]):
    def refuse(self: FakeMlflowClient, run_id: str) -> None:
        raise OSError("no such server")

    mlflow.set_terminated = refuse
    tell("mlflow", run)
    (failed,) = (event for event in run.events() if event["event"] == "listener failed")
    assert (failed["listener"], failed["cause"]) == ("tracker", "OSError('no such server')")


def test_a_tracker_that_refuses_to_start_is_told_by_its_key(run: RunDirectory, mlflow: type[FakeMlflowClient]):
    def refuse(self: FakeMlflowClient, name: str) -> None:
        raise OSError("no such server")

    mlflow.get_experiment_by_name = refuse
    with pytest.raises(UserError, match=r'^run\.tracker = "mlflow" does not start: no such server$'):
        tell("mlflow", run)
