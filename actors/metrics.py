"""The metrics of a run as Ray exports them: from this process to its node's agent, where Prometheus fetches them."""

from collections.abc import Iterable
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from medcritical_ray.audience import Listener
from medcritical_ray.metrics import METRICS, Metric, Reading
from medcritical_ray.readings import of_phase, phase_readings, step_readings


class RunMetrics:
    """Needs a Ray that is initialised."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._instruments: dict[str, Counter | Gauge | Histogram] = {}

    def record(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            tags = {"run": self._run, **reading.tags}
            instrument = self._instrument(reading.name)
            if isinstance(instrument, Gauge):
                instrument.set(reading.value, tags)
            elif isinstance(instrument, Histogram):
                instrument.observe(reading.value, tags)
            elif reading.value > 0:
                instrument.inc(reading.value, tags)

    def _instrument(self, name: str) -> Counter | Gauge | Histogram:
        if name not in self._instruments:
            self._instruments[name] = _new_instrument(METRICS[name])
        return self._instruments[name]


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
        self._record_phase(phase_progress_ratio=done / total)

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self._record_phase(phase_progress_ratio=metrics["step"] / metrics["num_steps"])
        self._metrics.record(step_readings(iteration, phase, metrics))

    def _record_phase(self, **values: float) -> None:
        self._metrics.record(of_phase(*self._phase, name, value) for name, value in values.items())


def _new_instrument(metric: Metric) -> Counter | Gauge | Histogram:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.help, list(metric.boundaries), metric.tag_keys)
    instrument = Counter if metric.kind == "counter" else Gauge
    return instrument(metric.name, metric.help, metric.tag_keys)
