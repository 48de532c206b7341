"""Who follows a run beside the terminal: its store, Ray's metrics, the page of its job, and a tracker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from actors.job_page import JobPage, submission_id
from actors.metrics import MetricsListener, RunMetrics
from medcritical_ray.config import Config
from medcritical_ray.game import Progress
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.store.keeping import KeepingListener
from medcritical_ray.telling.audience import Audience, Dispensable
from medcritical_ray.telling.readings import past_readings
from medcritical_ray.telling.trackers import open_tracker


@contextmanager
def followed(config: Config, run: RunDirectory, terminal: Progress) -> Iterator[Audience]:
    """All who are told how far the run is. A run goes on without any of them but the terminal and its store.

    Needs a Ray that is initialised. Raises UserError if the configured tracker refuses to start.
    """

    def metrics() -> Progress:
        metrics = RunMetrics(config.run.name)
        metrics.record(past_readings(run, config.run.num_iterations))
        return MetricsListener(metrics)

    makers: dict[str, Callable[[], Progress]] = {"metrics": metrics}
    if job := submission_id():
        makers["job page"] = partial(JobPage, job, config.run.name, config.cluster.connect_timeout_s)
    with open_tracker(config.run, run) as tracker:
        if tracker:
            makers["tracker"] = lambda: tracker
        dispensable = (Dispensable(make, name, run) for name, make in makers.items())
        yield Audience(terminal, KeepingListener(run), *dispensable)
