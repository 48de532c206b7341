"""The Grafana dashboard asks for metrics and tags that there are, in queries that Prometheus takes."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcritical_ray.telling.metrics import METRICS, Metric

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana" / "medcritical.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPORTED = {metric.exported_name: metric for metric in METRICS.values()}
GRAFANA_VARIABLES = {"$run": ".*", "$__rate_interval": "5m", "$__range": "1h"}


def queries() -> dict[str, str]:
    """ "panel: refId" -> its query, with a value for each of Grafana's variables."""
    return {
        f"{panel['title']}: {target['refId']}": with_values(target["expr"])
        for panel in PANELS
        for target in panel["targets"]
    }


def with_values(expression: str) -> str:
    for variable, value in GRAFANA_VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


QUERIES = queries()


def metrics_of(query: str) -> list[Metric]:
    """Those whose names stand in a query. A name that no metric is exported by is a KeyError."""
    return [EXPORTED[name] for name in re.findall(r"\bray_\w+", query)]


def tags_of(query: str) -> set[str]:
    """The tags that a query selects or groups by."""
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    selected = re.findall(r"(\w+)=~?\"", query)
    return {tag.strip() for group in grouped for tag in group.split(",")} | set(selected)


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own checker; tools/promtool.sh says how it comes here."""
    done = subprocess.run([ROOT / "tools" / "promtool.sh"], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_promtool(promtool: str, *arguments: str | Path) -> str:
    done = subprocess.run([promtool, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dashboard_has_its_rows_and_each_panel_a_query():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Outcome", "Rollouts", "Training", "Fleet", "Phases"]
    assert [panel["title"] for panel in PANELS if not panel["targets"]] == []
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_no_panel_lies_on_another():
    places = [cell for panel in DASHBOARD["panels"] for cell in cells(panel["gridPos"])]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


def test_the_dashboard_shows_every_metric():
    shown = {metric.name for query in QUERIES.values() for metric in metrics_of(query)}
    assert shown == set(METRICS)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_only_metrics_and_tags_that_there_are(name: str):
    known = [set(metric.tag_keys) for metric in metrics_of(QUERIES[name])]
    assert known
    assert tags_of(QUERIES[name]) - set.intersection(*known) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_legend_names_only_what_its_query_groups_by(panel: dict[str, Any]):
    for target in panel["targets"]:
        grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(re.split(r", *", grouped[0]))


def test_the_choice_of_a_run_asks_a_metric_that_is_there():
    (choice,) = (variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "run")
    assert choice["definition"] == "label_values(ray_medcritical_phase_running, run)"
    assert "ray_medcritical_phase_running" in EXPORTED


def test_prometheus_takes_every_query_and_each_finds_what_the_table_describes(promtool: str, tmp_path: Path):
    """Prometheus computes every query on one series for each metric, whose tags are such as a run has them."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES.values())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in run_promtool(promtool, "check", "rules", tmp_path / "rules.yml")
    found = [
        {"expr": f"count({query}) > bool 0", "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for query in QUERIES.values()
    ]
    series = [{"series": text, "values": "1+1x60"} for metric in METRICS.values() for text in series_of(metric)]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": found}
    (tmp_path / "test.yml").write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in run_promtool(promtool, "test", "rules", tmp_path / "test.yml")


SEEN = {
    "run": ["demo"],
    "iteration": ["1"],
    "phase": ["evaluate_base", "evaluate", "generate", "correct", "pair", "train"],
    "split": ["dev", "test"],
    "task": ["solve", "repair"],
    "outcome": ["right"],
    "source": ["own"],
    "reason": ["own: no right attempt"],
    "moment": ["before"],
    "role": ["generator"],
    "engine": ["medcritical/demo/generator-0"],
    "state": ["healthy"],
}
"""Tag -> values that runs give it."""


def series_of(metric: Metric) -> list[str]:
    labels = [""]
    for tag in metric.tag_keys:
        labels = [f'{text}{tag}="{value}",' for text in labels for value in SEEN[tag]]
    return [f"{metric.exported_name}{{{text}}}" for text in labels]
