"""A run's driver, and what an operator does for it: ends one that stands still, and resumes one that ended early."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from jobs.cli import EXIT_USER_ERROR
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory

STANDSTILL_S = 10.0
"""A driver that took no time of a CPU for so long stands still: a healthy one looks around several times a second."""


class Driver:
    """`medcritical self-play` with the words that describe the run, in a process of its own, started by `tend`."""

    def __init__(self, run: RunDirectory, words: Sequence[str], log: Path) -> None:
        self._run = run
        self._words = words
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_s = 0.0
        self._moved_at = 0.0

    @property
    def process(self) -> psutil.Process | None:
        """The one that is there."""
        if self._process is not None and self._process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                return psutil.Process(self._process.pid)
        return None

    @property
    def is_done(self) -> bool:
        return self.process is None and self._run.summary_file.exists()

    def tend(self) -> None:
        """Raises UserError, with what the driver says, if it refuses to begin."""
        process = self.process
        if process and self._stands_still(process):
            self.end()
        elif not process and not self.is_done:
            if self._exit_code == EXIT_USER_ERROR and not self._run.exists():
                raise UserError(self._log.read_text(encoding="utf-8").strip().rpartition("error: ")[2])
            self._start()

    @property
    def _exit_code(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        resume = ["--resume"] if self._run.exists() else []
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobs.self_play", *self._words, *resume],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever tends it
            )
        self._moved_at = time.monotonic()

    def _stands_still(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            cpu_s = sum(process.cpu_times()[:2])
            if cpu_s != self._cpu_s:
                self._cpu_s, self._moved_at = cpu_s, time.monotonic()
        return time.monotonic() - self._moved_at > STANDSTILL_S
