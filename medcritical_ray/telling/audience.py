"""Several who are told how far a run is, and those among them that it can do without."""

from collections.abc import Callable
from typing import Any

from medcritical_ray.game import Progress
from medcritical_ray.run.directory import RunDirectory


class Listener:
    """A Progress that lets pass whatever it does not override."""

    def start_phase(self, iteration: int, phase: str) -> None: ...

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None: ...

    def advance(self, label: str, done: int, total: int) -> None: ...

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None: ...


class Audience:
    """Tells each of them, in their order."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def start_phase(self, iteration: int, phase: str) -> None:
        for each in self._listeners:
            each.start_phase(iteration, phase)

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        for each in self._listeners:
            each.finish_phase(iteration, phase, seconds, result)

    def advance(self, label: str, done: int, total: int) -> None:
        for each in self._listeners:
            each.advance(label, done, total)

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        for each in self._listeners:
            each.step(iteration, phase, metrics)


class Dispensable:
    """Makes a listener and tells it until it fails, which is an event of the run and never its end."""

    _listener: Progress

    def __init__(self, make: Callable[[], Progress], name: str, run: RunDirectory) -> None:
        self._name = name
        self._run = run
        try:
            self._listener = make()
        except Exception as error:  # noqa: BLE001  # as below
            self._give_up(error)

    def start_phase(self, iteration: int, phase: str) -> None:
        self._tell("start_phase", iteration, phase)

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        self._tell("finish_phase", iteration, phase, seconds, result)

    def advance(self, label: str, done: int, total: int) -> None:
        self._tell("advance", label, done, total)

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self._tell("step", iteration, phase, metrics)

    def _tell(self, what: str, *arguments: Any) -> None:
        try:
            getattr(self._listener, what)(*arguments)
        except Exception as error:  # noqa: BLE001  # days of work are not to end in a curve
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run.append_event("listener failed", listener=self._name, cause=repr(error))
        self._listener = Listener()
