"""An engine's pulse: it is asked now and then how far it is, beside what it works on."""

import time
from typing import Any

import ray
from ray.exceptions import RayError


class Pulse:
    """Asks an engine every `every_s` seconds, while it works. One question is open at a time: who is stopped does not
    answer it, and who is stuck answers the same as before."""

    def __init__(self, engine: Any, every_s: float) -> None:
        self._engine = engine
        self._every_s = every_s
        self._question: Any = None
        self._asked_at = time.monotonic()
        self._progress: int | None = None

    def has_moved(self) -> bool:
        """Whether an answer has come that tells progress. Never waits."""
        if self._question is None:
            if time.monotonic() >= self._asked_at + self._every_s:
                self._question, self._asked_at = self._engine.progress.remote(), time.monotonic()
            return False
        if not ray.wait([self._question], timeout=0)[0]:
            return False
        before, self._progress = self._progress, self._answer()
        return self._progress != before

    def _answer(self) -> int | None:
        """What the engine says; what it said before, if it died: its other calls tell how."""
        question, self._question = self._question, None
        try:
            return int(ray.get(question))
        except RayError:
            return self._progress
