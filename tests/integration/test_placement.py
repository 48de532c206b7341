"""Labels on a cluster of three nodes: who lies where, and what it costs to lose the engines' node."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(tied_policies: tuple[Path, Path]) -> dict[str, Any]:
    """What the run of labelled_cluster.py tells: this process may be connected to another cluster already."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "RAY_AUTH_MODE": "disabled",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_TMPDIR": directory,
        }
        command = [sys.executable, str(HERE / "labelled_cluster.py"), directory, str(tied_policies[0])]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


def test_a_cluster_without_labelled_nodes_is_told_the_labels_that_are_missing(told: dict[str, Any]):
    of_labels = [line for line in told["without_nodes"] if "labelled" in line]
    assert of_labels == [
        "engines: no node is labelled medcritical_role=engines: start some with `ray start "
        "--labels=medcritical_role=engines`, or change engines.labels",
        "training workers: no node is labelled medcritical_role=trainers: start some with `ray start "
        "--labels=medcritical_role=trainers`, or change trainers.labels",
    ]
    assert told["with_nodes"] == []


def test_engines_and_training_workers_lie_on_the_nodes_of_their_labels(told: dict[str, Any]):
    assert told["engines"] == [told["engine_node"]] * 2
    assert told["workers"] == [told["trainer_node"]]


def test_a_training_does_not_notice_that_the_engines_node_is_lost(told: dict[str, Any]):
    assert told["first_steps"] == 1
    assert told["last_step"] == told["num_steps"]
