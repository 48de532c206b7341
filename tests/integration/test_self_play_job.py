"""The main job as a user runs it: in processes of its own, from a directory of their own, killed, and resumed; and what
the cluster's dashboard and Prometheus see of it."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from scraping import Scraped
from tiny_run import REPOSITORY, KilledRun, finish, start

from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.telling.metrics import METRICS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

DASHBOARD = REPOSITORY / "cluster" / "grafana" / "medcritical.json"


def check_metrics(seen: Scraped) -> None:
    """The node has exported every metric of the dashboard, with the tags of the table."""
    shown = set(re.findall(r"ray_medcritical_\w+", DASHBOARD.read_text()))
    table = {metric.exported_name: {tuple(sorted(metric.tag_keys))} for metric in METRICS.values()}
    assert shown == set(table)
    assert {name: tags for name, tags in seen.tags().items() if name in shown} == table
    assert seen.value("ray_medcritical_tokens_total", run="tiny", role="generator")
    # The last thing that a run tells before it ends.
    tested = {"run": "tiny", "iteration": "1", "phase": "evaluate", "split": "test"}
    assert seen.value("ray_medcritical_accuracy_ratio", **tested) is not None


def check_dashboard() -> None:
    """Ray's dashboard shows engines, trainings and datasets by the name of the run."""
    import ray
    from ray._private.state import actors
    from ray.data._internal.stats import get_or_create_stats_actor
    from ray.train.v2._internal.state.state_actor import get_state_actor

    assert {"medcritical/tiny/generator-0#1"} <= {actor["Name"] for actor in actors().values()}
    trainings = ray.get(get_state_actor().get_train_runs.remote())
    assert {training.name.rpartition("-")[0] for training in trainings.values()} >= {"tiny-sft-draft", "tiny-dpo-001"}
    datasets = ray.get(get_or_create_stats_actor().get_datasets.remote())
    assert any(name.startswith("tiny-dpo-001-shard-0") for name in datasets)


def test_a_run_goes_on_after_stage_one_alone_and_after_a_kill_and_does_nothing_twice(killed_run: KilledRun):
    run, output, seen = killed_run
    check_metrics(seen)
    check_dashboard()
    phases = Counter((e["iteration"], e["phase"]) for e in run.events() if e["event"] == "phase done")
    assert set(phases.values()) == {1}
    assert PolicyStore(run.policies).versions() == [0, 1]
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["num_test"], len(summary["accuracy"]["iterations"])) == (20, 1)
    assert summary["versions"]["published"] == [0, 1]
    # The run is finished now: its table is shown again, and nothing starts it anew by accident.
    cwd: Path = run.path.parents[1]
    exit_code, table = finish(start(cwd, "--resume"))
    assert exit_code == 0
    assert "Accuracy on 20 test questions" in table
    assert output.endswith(table)
    exit_code, output = finish(start(cwd))
    assert exit_code == 2
    assert output.startswith(f"error: {run.path} holds a run already: resume it with `medcritical self-play")
