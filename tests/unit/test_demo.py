"""`medcritical demo`: which run it plays, and when it goes on with one. Playing itself is for the integration tests."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

import jobs.self_play
from jobs.cli import main
from jobs.demo import CONFIG
from medcritical_ray.config import Config
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import new_record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the demo has had played, from a directory of its own."""
    calls: list[dict[str, Any]] = []

    def play(config: Config, **how: Any) -> int:
        calls.append({"config": config, **how})
        return 0

    monkeypatch.setattr(jobs.self_play, "play", play)
    monkeypatch.chdir(tmp_path)
    return calls


def test_the_first_call_starts_the_run_and_the_next_goes_on_with_it(played: list[dict[str, Any]], tmp_path: Path):
    assert main(["demo"]) == 0
    run = tmp_path / "runs" / "demo" / "run.json"
    run.parent.mkdir(parents=True)
    run.touch()
    assert main(["demo"]) == 0
    assert [call["resume"] for call in played] == [False, True]
    assert [call["command"] for call in played] == ["medcritical demo"] * 2
    assert played[0]["config"].run.name == "demo"


def test_a_demo_with_other_keys_is_resumed_with_them(played: list[dict[str, Any]]):
    assert main(["demo", "--set", "run.name=other one", "--set", "run.seed=1"]) == 2
    assert main(["demo", "--set", "run.name=other", "--set", "dpo.beta=0.2"]) == 0
    assert played[0]["command"] == "medcritical demo --set run.name=other --set dpo.beta=0.2"
    assert played[0]["config"].dpo.beta == 0.2


def test_the_demo_s_config_lies_in_a_package_that_a_wheel_takes_whole():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert CONFIG.relative_to(ROOT).parts[0] in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_a_demo_that_another_process_plays_is_said_to_be_in_use_and_nothing_else(
    played: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with RunDirectory.create(tmp_path / "runs" / "demo", new_record({}), resume_command="medcritical demo"):
        assert main(["demo"]) == 2
    told = capsys.readouterr()
    assert f"is being worked on by process {os.getpid()} on " in told.err
    assert (told.out, played) == ("", [])


def test_a_demo_that_is_finished_is_not_said_to_be_resumed(
    played: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with RunDirectory.create(tmp_path / "runs" / "demo", new_record({}), resume_command="medcritical demo") as run:
        run.finish({})
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == f"{run.path} exists and is finished; remove it to start anew\n"
