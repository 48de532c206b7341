"""Who follows a run beside the terminal: its store, Ray's metrics, the page of its job, and a tracker."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    """All who are told how far the run is. A run goes on without any of them but the terminal
    and its store.

    Needs a Ray that is initialised. Raises UserError if the configured tracker refuses to start.
    """
    metrics = RunMetrics(config.run.name)
    metrics.record(past_readings(run, config.run.num_iterations))
    listeners: dict[str, Progress] = {"metrics": MetricsListener(metrics)}
    job = submission_id()
    if job:
        listeners["job page"] = JobPage(job, config.run.name, config.cluster.connect_timeout_s)
    with open_tracker(config.run, run) as tracker:
        if tracker:
            listeners["tracker"] = tracker
        dispensable = (Dispensable(each, name, run) for name, each in listeners.items())
        yield Audience(terminal, KeepingListener(run), *dispensable)
