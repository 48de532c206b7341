"""The metrics of a run as Ray exports them: from this process to its node's agent, where Prometheus fetches them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any

from ray.util.metrics import Counter, Gauge

from medcritical_ray.telling.audience import Listener
from medcritical_ray.telling.metrics import METRICS, Metric, Reading
from medcritical_ray.telling.readings import of_phase, phase_readings, step_readings

_REPEATED_AFTER_S = 5.0


class _Instruments:
    """Those of this process, and the latest value of each gauge.

    Ray exports a gauge, every 10 s, only if it was set since the last time; its node's agent forgets it after 20 s.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: dict[str, Counter | Gauge] = {}
        self._latest: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def record(self, name: str, value: float, tags: dict[str, str]) -> None:
        with self._lock:
            instrument = self._of(name)
            if isinstance(instrument, Gauge):
                self._latest[name, frozenset(tags.items())] = value
                instrument.set(value, tags)
            elif value > 0:  # Ray refuses to count nothing
                instrument.inc(value, tags)

    def repeat(self) -> None:
        with self._lock:
            for (name, tags), value in self._latest.items():
                self._made[name].set(value, dict(tags))  # type: ignore[union-attr]  # only gauges have a latest value

    def forget(self) -> None:
        with self._lock:
            self._made.clear()
            self._latest.clear()

    def _of(self, name: str) -> Counter | Gauge:
        if name not in self._made:
            self._made[name] = _new_instrument(METRICS[name])
        return self._made[name]


_INSTRUMENTS = _Instruments()


@contextmanager
def gauges_repeated() -> Iterator[None]:
    """What this process has recorded stays visible as long as the block lasts, which must be within a Ray."""
    ended = Event()

    def repeat() -> None:
        while not ended.wait(_REPEATED_AFTER_S):
            _INSTRUMENTS.repeat()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _INSTRUMENTS.repeat()  # what is set when Ray shuts down is still exported
        _INSTRUMENTS.forget()


class RunMetrics:
    """Records the readings of one run. Needs a Ray that is initialised."""

    def __init__(self, run: str) -> None:
        self._run = run

    def record(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            _INSTRUMENTS.record(reading.name, reading.value, {"run": self._run, **reading.tags})


class MetricsListener(Listener):
    """Records what the phases and training steps of a run come to."""

    def __init__(self, metrics: RunMetrics) -> None:
        self._metrics = metrics
        self._phase = (0, "")

    def start_phase(self, iteration: int, phase: str) -> None:
        self._phase = (iteration, phase)
        self._record_phase(phase_running=1, phase_progress_ratio=0)

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        self._record_phase(phase_running=0, phase_progress_ratio=1)
        self._metrics.record(phase_readings(iteration, phase, result))

    def advance(self, label: str, done: int, total: int) -> None:
        self._record_phase(phase_progress_ratio=done / max(total, 1))

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self._record_phase(phase_progress_ratio=metrics["step"] / metrics["num_steps"])
        self._metrics.record(step_readings(iteration, phase, metrics))

    def _record_phase(self, **values: float) -> None:
        self._metrics.record(of_phase(*self._phase, name, value) for name, value in values.items())


def _new_instrument(metric: Metric) -> Counter | Gauge:
    instrument = Counter if metric.kind == "counter" else Gauge
    return instrument(metric.name, metric.help, metric.tag_keys)
