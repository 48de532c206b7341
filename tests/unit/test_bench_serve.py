"""What the benchmark of serving makes of a run, and of what clients saw."""

import math
import time
from pathlib import Path

from jobs.bench_serve import swapped
from jobs.benchmarks.load import Load, summary
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.record import new_record
from medcritical_ray.run.state import adopted_version


def test_no_version_is_adopted_that_was_never_published(tmp_path: Path):
    run = RunDirectory.create(tmp_path / "run", new_record({}), resume_command="")
    for version in range(2):
        PolicyStore(run.policies).publish(version, base_student_dir(), parent=None, metrics={})
    run.finish_iteration(0, {"adopted_version": 0})
    with swapped(run, every_s=0.01):
        time.sleep(0.5)
    assert adopted_version(run) == 1


def test_latencies_are_told_by_their_median_and_their_slowest_hundredth():
    load = Load(seconds=2.0, latencies_s=[0.01 * n for n in range(101)], models=["v0000"] * 101)
    told = summary([load])
    assert (told["p50_s"], told["p99_s"], told["requests_per_s"]) == (0.5, 0.99, 50.5)


def test_who_was_never_answered_has_no_latency():
    told = summary([Load(seconds=1.0, failures=["refused"])])
    assert (told["num_failed"], math.isnan(told["p50_s"])) == (1, True)
