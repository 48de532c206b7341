"""Has a run's keeper follow the work within a phase: finished parts are kept soon, not only finished phases."""

import time
from typing import Any

from medcritical_ray.game import Progress
from medcritical_ray.run_directory import RunDirectory

_EVERY_S = 10.0
"""A part that took less to write is not worth a round trip to a store."""


class KeepingProgress:
    """Tells `progress`, and has the run kept every few seconds while a phase moves on."""

    def __init__(self, progress: Progress, run: RunDirectory) -> None:
        self._progress = progress
        self._run = run
        self._kept_at = time.monotonic()

    def start_phase(self, iteration: int, phase: str) -> None:
        self._progress.start_phase(iteration, phase)

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        self._progress.finish_phase(iteration, phase, seconds, result)

    def advance(self, label: str, done: int, total: int) -> None:
        self._progress.advance(label, done, total)
        if time.monotonic() > self._kept_at + _EVERY_S:
            self._run.keep()
            self._kept_at = time.monotonic()
