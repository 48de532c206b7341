"""The smallest run that has every phase, as a user starts it: in a process and a directory of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from scraping import Scraped

from medcritical_ray.run.directory import RunDirectory

CONFIG = Path("jobs") / "configs" / "test_tiny.toml"
"""Its path in the repository."""
# One SFT less than there could be: stage 1 has two of them, and a training worker takes most of a minute to start.
SETTINGS = ("--set", "run.num_iterations=1", "--set", "sft.own_attempts=0")
REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 240


class KilledRun(NamedTuple):
    """A finished run, of stage 1 alone at first, whose driver was killed in stage 2: what its last process printed, and
    what its node exported."""

    run: RunDirectory
    output: str
    seen: Scraped


def start(cwd: Path, *arguments: str, job: str = "self_play") -> subprocess.Popen[str]:
    """The run with its directory `here` below `cwd`, on the cluster of the test session."""
    import ray

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", f"jobs.{job}", "--config", str(REPOSITORY / CONFIG), *SETTINGS]
    return subprocess.Popen(
        [*command, "--set", "run.directory=here", *arguments],
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
