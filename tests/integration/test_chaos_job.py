"""`medcritical chaos` as a user runs it: a run that is disturbed three times, on a cluster of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "chaos_clinic.toml"
# Training workers take most of a minute to start; what becomes of theirs is tested with the trainings.
SETTINGS = [
    "run.num_iterations=1",
    "sft.own_attempts=0",
    "evaluate.num_passes=0",
    "trainers.num_workers=0",
    "engines.request_timeout_s=10",
]
SEED = "16"
"""Its kills come in stage 1, so that the run does not end before them."""
PATIENCE_S = 840


def test_a_run_under_kills_ends_with_the_rows_and_policies_of_an_undisturbed_one(tmp_path: Path):
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    words += ["--kills", "3", "--seed", SEED, "--json", "chaos.json"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.chaos", "--config", CONFIG, *words],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert (told["kills"], told["survived"]) == (3, 3)
    assert (told["rows_lost"], told["rows_doubled"], told["rows_changed"], told["broken"]) == (0, 0, 0, [])
    assert told["rows_expected"] > 300
    assert [(each["target"], each["signal"]) for each in told["sent"]] == [
        ("driver", "SIGSTOP"),
        ("engine", "SIGSTOP"),
        ("node", "SIGKILL"),
    ]
    assert set(told["recovery_seconds"]) == {"driver", "engine", "node"}
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(tmp_path) in command] == []
