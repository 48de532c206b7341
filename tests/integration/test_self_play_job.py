"""The main job as a user runs it: in processes of its own, from a directory of their own, killed, and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from medcritical_ray.policies import PolicyStore
from medcritical_ray.run_directory import RunDirectory
from medcritical_ray.run_state import run_state

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "test_tiny.toml"
OPTIONS = [
    *("--config", str(CONFIG)),
    # One SFT less: stage 1 has two of them, and a training worker takes most of a minute to start.
    *("--set", "run.directory=here", "--set", "run.num_iterations=1", "--set", "sft.own_attempts=0"),
]
PATIENCE_S = 240


def start(cwd: Path, *arguments: str, job: str = "self_play") -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", f"jobs.{job}", *OPTIONS, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


def kill_after(process: subprocess.Popen[str], run: RunDirectory, iteration: int, phase: str) -> None:
    """Kills the driver as soon as the phase is done, so that it dies within the next one."""
    deadline = time.monotonic() + PATIENCE_S
    while not run.done(iteration, phase):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline, f"{phase} was not done in {PATIENCE_S} s"
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)


def test_stage_one_alone_leads_to_a_run_that_may_be_killed_and_does_nothing_twice(tmp_path: Path):
    run = RunDirectory(tmp_path / "here" / "tiny")
    exit_code, output = finish(start(tmp_path, job="sft"))
    assert exit_code == 0, output
    assert "Stage 2: medcritical self-play --config" in output
    assert PolicyStore(run.policies).versions() == [0]
    assert (run_state(run).state, run_state(run).cause) == ("stopped", "as asked, after stage 1")
    kill_after(start(tmp_path, "--resume"), run, 1, "pair")
    assert run_state(run).state == "stopped"
    assert PolicyStore(run.policies).versions() == [0]
    exit_code, output = finish(start(tmp_path, "--resume"))
    assert exit_code == 0, output
    phases = Counter((e["iteration"], e["phase"]) for e in run.events() if e["event"] == "phase done")
    assert set(phases.values()) == {1}
    assert PolicyStore(run.policies).versions() == [0, 1]
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["num_test"], len(summary["accuracy"]["iterations"])) == (20, 1)
    assert summary["versions"]["published"] == [0, 1]
    # The run is finished now: its table is shown again, and nothing starts it anew by accident.
    exit_code, table = finish(start(tmp_path, "--resume"))
    assert exit_code == 0
    assert "Accuracy on 20 test questions" in table
    assert output.endswith(table)
    exit_code, output = finish(start(tmp_path))
    assert exit_code == 2
    assert output.startswith(f"error: {run.path} holds a run already: resume it with `medcritical self-play")
