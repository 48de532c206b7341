"""How long a run takes to its first token, beside what no run can do without; and how long a help does."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jobs.benchmarks.figures import Figure, Goal, in_turn

GOAL = Goal(
    name="start of a run to its first written token",
    unit="s",
    peer="importing Ray and vLLM, starting Ray and an engine, one token",
    target=1.3,
    reach="at most",
)
HELP = Goal(name="medcritical --help", unit="s", target=1.0, reach="at most")
TIMEOUT_S, POLL_S = 600.0, 0.01
ONE_TOKEN = (
    *("questions.num_dev=20", "questions.num_test=20", "questions.block_size=1"),
    *("generate.sampling.max_tokens=1", "engines.num_engines=1", "evaluate.corrected_share=0.0"),
)
"""The demo, with blocks of one text of one token: the first that is kept comes at once after the first token."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """From the start of each command's process."""
    run, bare = partial(_run_s, scratch), partial(_bare_s, scratch)
    ours, peer, helps = in_turn(repeats, run, bare, _help_s)
    return [Figure(goal=GOAL, ours_each=ours, peer_each=peer), Figure(goal=HELP, ours_each=helps)]


def _run_s(scratch: Path) -> float:
    """Until the first text that the run's first phase has written lies there; then the run is told to end."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    settings = [word for key in (*ONE_TOKEN, f"run.directory={directory}") for word in ("--set", key)]
    with (directory / "log").open("w") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.demo", *settings], stdout=log, stderr=log, env={**os.environ, **_NICE}
        )
        try:
            while not any(directory.rglob("answers/part-*.parquet")):
                has_ended = process.poll() is not None
                if has_ended or time.perf_counter() > started + TIMEOUT_S:
                    raise RuntimeError(f"no token was written: {(directory / 'log').read_text()[-2000:]}")
                time.sleep(POLL_S)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


def _bare_s(scratch: Path) -> float:
    directory = tempfile.mkdtemp(dir=scratch)
    started = time.perf_counter()
    command = [sys.executable, "-m", "jobs.benchmarks.first_token", directory]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **_NICE})
    return time.perf_counter() - started


def _help_s() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobs.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


_NICE = {"RAY_worker_niceness": "0"}
"""Ray's workers would give way to others, and the other process would not."""
