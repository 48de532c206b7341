"""One run under kills: sends each at its moment, and waits until the run has recovered from it."""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import psutil

from actors.local_cluster import LocalCluster
from jobs.trials.driver import Driver
from jobs.trials.lookout import Lookout
from medcritical_ray.chaos.outcome import Outcome
from medcritical_ray.chaos.schedule import Kill, Phase, is_due
from medcritical_ray.chaos.sighting import Sighting, Strike, has_recovered
from medcritical_ray.phases import iteration_name
from medcritical_ray.run.directory import RunDirectory

_LOOK_S = 0.5

Result = TypeVar("Result")


class Trial:
    """Plays a run to its end, while driver and cluster are tended. `limit_s` bounds the recovery from a kill, and the
    time in which nothing is written. `tell` shows a line, and returns the seconds since all began."""

    def __init__(
        self,
        run: RunDirectory,
        driver: Driver,
        cluster: LocalCluster,
        phases: list[Phase],
        limit_s: float,
        tell: Callable[[str], float],
    ) -> None:
        self._run = run
        self._driver = driver
        self._cluster = cluster
        self._phases = phases
        self._limit_s = limit_s
        self._tell = tell
        self._lookout = Lookout(run, phases, cluster, driver)

    def play(self, kills: Sequence[Kill] = ()) -> list[Outcome]:
        """What came of the kills that were sent: all, unless the run ended before. Whether it is finished is for its
        directory to say."""
        outcomes = []
        try:
            for kill in kills:
                strike = self._watch(partial(self._strike, kill))
                if strike is None:
                    break
                outcomes.append(self._outcome(strike))
            self._watch(lambda _: None)
        finally:
            self._driver.end()
        return outcomes

    def _watch(self, condition: Callable[[Sighting], Result | None]) -> Result | None:
        """What the condition gives, as soon as it gives anything; None if the run ends before, or does not get on."""
        began = time.time()
        while True:
            self._driver.tend()
            self._cluster.tend()
            seen = self._lookout.look()
            result = condition(seen)
            if result is not None or self._driver.is_done:
                return result
            if seen.time - max(began, seen.wrote_at) > self._limit_s:
                self._tell(f"{self._run.path.name} did not get on for {self._limit_s:g} s")
                return None
            time.sleep(_LOOK_S)

    def _strike(self, kill: Kill, seen: Sighting) -> Strike | None:
        """Sends the kill, if its moment has come and somebody is there to get it."""
        candidates = self._lookout.of(kill.target)
        if seen.is_finished or not candidates or not is_due(kill, self._phases, seen.position, seen.phase_seconds):
            return None
        victim = kill.pick(candidates)
        with suppress(psutil.NoSuchProcess):
            victim.send(signal.Signals[kill.signal])
            return Strike(kill=kill, victim=victim.name, before=seen)
        return None

    def _outcome(self, strike: Strike) -> Outcome:
        kill, phase = strike.kill, self._phases[strike.before.position]
        title = f"{kill.signal} to {kill.target.replace('_', ' ')} {strike.victim[:8]}"
        struck_at = self._tell(f"{title} in {iteration_name(phase.iteration)}, {phase.name}, of {self._run.path.name}")
        recovery_seconds = self._await_recovery(strike)
        self._tell(f"  recovered in {recovery_seconds:.1f} s" if recovery_seconds else "  NOT RECOVERED")
        return Outcome(
            run=self._run.path.name,
            time=round(struck_at, 1),
            target=kill.target,
            signal=kill.signal,
            iteration=phase.iteration,
            phase=phase.name,
            recovery_seconds=recovery_seconds,
        )

    def _await_recovery(self, strike: Strike) -> float | None:
        """Seconds; None if it took too long, and then whoever was stopped goes on."""
        ends = strike.before.time + self._limit_s
        seen = self._watch(lambda seen: seen if has_recovered(strike, seen) or seen.time > ends else None)
        if seen is not None and has_recovered(strike, seen):
            return round(seen.time - strike.before.time, 1)
        for each in self._lookout.found:
            if each.name == strike.victim:
                each.send(signal.SIGCONT)
        return None
