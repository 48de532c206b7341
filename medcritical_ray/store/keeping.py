"""Has a run's keeper follow the work within a phase: finished parts are kept soon, not only finished phases."""

import time

from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.telling.audience import Listener

_EVERY_S = 10.0
"""A part that took less to write is not worth a round trip to a store."""


class KeepingListener(Listener):
    """Has the run kept every few seconds while a phase moves on. Raises what its keeper raises."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._kept_at = time.monotonic()

    def advance(self, label: str, done: int, total: int) -> None:
        self._keep_now_and_then()

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self._keep_now_and_then()

    def _keep_now_and_then(self) -> None:
        if time.monotonic() > self._kept_at + _EVERY_S:
            self._run.keep()
            self._kept_at = time.monotonic()
