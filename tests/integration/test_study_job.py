"""`medcritical study`: what is refused before its first arm is played, as `self-play` refuses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from medcritical_ray.errors import UserError
from medcritical_ray.planning.fit import ClusterResources

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "study_clinic.toml"


def refusal(out: Path | str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["study", "--config", str(CONFIG), "--seeds", "1", "--out", str(out)]) == 2
    return capsys.readouterr().err


def test_a_submitted_study_is_written_where_it_outlives_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "study-1"}}')
    assert refusal("study", capsys).startswith("error: --out = 'study' is gone with the job")


def test_a_study_lies_where_every_machine_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    @contextmanager
    def large(*_: Any, **how: Any) -> Iterator[ClusterResources]:
        yield ClusterResources(num_cpus=99, num_gpus=0, memory_gib=999, disk_gib=999)

    def not_shared(config: Any) -> None:
        raise UserError(f"run.directory = {config.run.directory!r} is not shared by all nodes")

    monkeypatch.setattr("actors.cluster.connected", large)
    monkeypatch.setattr("actors.storage.check_storage", not_shared)
    monkeypatch.setattr("actors.team.RayTeam", lambda _: pytest.fail("engines are asked for"))
    told = refusal(tmp_path, capsys).splitlines()[-1]
    assert told == f"error: run.directory = '{tmp_path}/seed-0' is not shared by all nodes"
