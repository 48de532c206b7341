"""The main job as a user runs it: in processes of its own, from a directory of their own, killed, and resumed; and what
the cluster's dashboard and Prometheus see of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from scraping import Scraped, scraped

from medcritical_ray.metrics import METRICS
from medcritical_ray.policies import PolicyStore
from medcritical_ray.run_directory import RunDirectory

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "jobs" / "configs" / "test_tiny.toml"
DASHBOARD = ROOT / "cluster" / "grafana" / "medcritical.json"
COMMAND = [
    *(sys.executable, "-m", "jobs.self_play", "--config", str(CONFIG)),
    # One SFT less: stage 1 has two of them, and a training worker takes most of a minute to start.
    *("--set", "run.directory=here", "--set", "run.num_iterations=1", "--set", "sft.own_attempts=0"),
    # Enough held-out pairs that there are some to tell of.
    *("--set", "dpo.held_out_share=0.3"),
]
PATIENCE_S = 240


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """The job, on the cluster of the test session."""
    import ray

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    return subprocess.Popen(
        [*COMMAND, *arguments],
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


def check_metrics(seen: Scraped) -> None:
    """The node has exported every metric of the dashboard, with the tags of the table."""
    shown = set(re.findall(r"ray_medcritical_\w+", DASHBOARD.read_text()))
    table = {metric.exported_name: {tuple(sorted(metric.tag_keys))} for metric in METRICS.values()}
    assert shown == set(table)
    assert {name: tags for name, tags in seen.tags().items() if name in shown} == table
    assert seen.value("ray_medcritical_tokens_total", run="tiny", role="generator")
    # The last thing that a run tells before it ends.
    tested = {"run": "tiny", "iteration": "1", "phase": "evaluate", "split": "test"}
    assert seen.value("ray_medcritical_accuracy_ratio", **tested) is not None


def check_dashboard() -> None:
    """Ray's dashboard shows engines and trainings by the name of the run."""
    import ray
    from ray._private.state import actors
    from ray.train.v2._internal.state.state_actor import get_state_actor

    assert {"medcritical/tiny/generator-0#1"} <= {actor["Name"] for actor in actors().values()}
    trainings = ray.get(get_state_actor().get_train_runs.remote())
    assert {training.name.rpartition("-")[0] for training in trainings.values()} >= {"tiny-sft-draft", "tiny-dpo-001"}


def test_a_run_that_was_killed_goes_on_and_does_nothing_twice(ray_cluster: None, tmp_path: Path):
    import ray

    run = RunDirectory(tmp_path / "here" / "tiny")
    with scraped(ray.nodes()[0]["MetricsExportPort"]) as seen:
        kill_after(start(tmp_path), run, 1, "pair")
        assert PolicyStore(run.policies).versions() == [0]
        exit_code, output = finish(start(tmp_path, "--resume"))
    assert exit_code == 0, output
    check_metrics(seen)
    check_dashboard()
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
