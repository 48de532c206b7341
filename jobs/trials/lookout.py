"""Looks at a run from outside, and knows the processes that a kill may be for."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from actors.local_cluster import LocalCluster, words_of
from jobs.trials.driver import Driver
from medcritical_ray.chaos.schedule import Phase, Target
from medcritical_ray.chaos.sighting import Sighting
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.store.remote import is_hidden

_ENGINE, _STARTING_ENGINE, _WORKER = "ray::EngineActor", "ray::EngineActor.start", "ray::RayTrainWorker"
"""How Ray's processes call themselves: by their actor's class, and by the method that it is at."""


@dataclass(frozen=True, slots=True)
class Found:
    """A driver, an engine, a training worker or a node."""

    target: Target
    name: str
    send: Callable[[int], None]
    is_working: bool


class Lookout:
    """Finds nobody but the driver and the nodes that it is given, and the processes that descend from these."""

    def __init__(self, run: RunDirectory, phases: list[Phase], cluster: LocalCluster, driver: Driver) -> None:
        self._run = run
        self._phases = phases
        self._cluster = cluster
        self._driver = driver
        self._position = 0
        self._phase_since = time.time()
        self._worked_since: dict[str, float] = {}
        self._started: set[str] = set()
        self.found: list[Found] = []

    def look(self) -> Sighting:
        """Notes who is there, in `found`, and how far the run is."""
        now = time.time()
        self.found = list(self._find())
        for each in self.found:
            if each.is_working:
                self._worked_since.setdefault(each.name, now)
        return Sighting(
            time=now,
            working={
                target: {each.name: self._worked_since[each.name] for each in self.of(target) if each.is_working}
                for target in get_args(Target)
            },
            present={each.name for each in self.found},
            position=self._find_position(now),
            phase_seconds=now - self._phase_since,
            wrote_at=self._last_write(),
            is_finished=self._run.summary_file.exists(),
        )

    def of(self, target: Target) -> list[Found]:
        return [each for each in self.found if each.target == target]

    def _find(self) -> Iterator[Found]:
        driver = self._driver.process
        if driver:
            yield Found("driver", str(driver.pid), driver.send_signal, True)
        alive = self._cluster.alive()
        for node in self._cluster.nodes:
            if node.node_id:
                yield Found("node", node.node_id, node.send, node.node_id in alive)
            for process in node.processes():
                name, title = str(process.pid), "".join(words_of(process)[:1])
                if title.startswith(_ENGINE):
                    yield Found("engine", name, process.send_signal, self._serves(name, title))
                elif title.startswith(_WORKER):
                    yield Found("train_worker", name, process.send_signal, True)

    def _serves(self, name: str, title: str) -> bool:
        """Whether an engine has started: it idles for a moment before, too."""
        is_starting = title.startswith(_STARTING_ENGINE)
        if is_starting:
            self._started.add(name)
        return name in self._started and not is_starting

    def _find_position(self, now: float) -> int:
        """The first phase that is not done, or the last of all."""
        while self._position < len(self._phases) - 1:
            phase = self._phases[self._position]
            if not self._run.done(phase.iteration, phase.name):
                break
            self._position, self._phase_since = self._position + 1, now
        return self._position

    def _last_write(self) -> float:
        last = 0.0
        for path in (self._run.path / "iterations").rglob("*"):
            if path.is_file() and not is_hidden(path.relative_to(self._run.path).as_posix()):
                with suppress(FileNotFoundError):
                    last = max(last, path.stat().st_mtime)
        return last
