"""Engines come with the work and go with it, on a Ray cluster whose autoscaler starts and ends machines."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HEAD_ID = "f" * 51 + "00000"
MACHINES = {
    "rollout": {"resources": {"CPU": 1}, "labels": {"group": "rollout"}, "node_config": {}, "max_workers": 2},
    "trainer": {"resources": {"CPU": 1}, "labels": {"group": "trainer"}, "node_config": {}, "max_workers": 1},
    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
}
COMMANDS = tuple(
    f"{when}_commands"
    for when in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
)


@pytest.fixture
def scaling_cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a head without CPUs, whose autoscaler starts further nodes on this machine."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        config = tmp_path / "autoscaling.yaml"
        config.write_text(yaml.safe_dump(autoscaling(address)))
        words = ["--head", "--block", "--port", str(port), "--num-cpus", "0", "--node-ip-address", "127.0.0.1"]
        words += ["--include-dashboard", "false", "--object-store-memory", str(100 * 2**20), "--temp-dir", directory]
        with running(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--autoscaling-config", str(config)],
            partial(socket.create_connection, ("127.0.0.1", port), timeout=1),
            tmp_path / "head.log",
            timeout_s=60,
            environment=environment(),
        ):
            yield address


def autoscaling(address: str) -> dict[str, object]:
    return {
        "cluster_name": "scaling",
        "max_workers": 3,
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 10,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,
        },
        "auth": {},
        **{key: {} for key in ("file_mounts", "docker")},
        **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter", *COMMANDS)},
        "file_mounts_sync_continuously": False,
        "available_node_types": MACHINES,
        "head_node_type": "ray.head.default",
    }


def environment() -> dict[str, str]:
    return os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_enable_autoscaler_v2": "1",  # the older one knows no labels
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def test_machines_come_with_the_work_and_go_and_what_a_lost_one_had_is_redone(
    scaling_cluster: str, tied_policies: tuple[Path, Path], tmp_path: Path
):
    driver = Path(__file__).with_name("autoscaled.py")
    done = subprocess.run(
        [sys.executable, driver, scaling_cluster, tied_policies[0], tmp_path],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = done.stdout.strip().splitlines()[-1]
    events = re.findall(r"^ *[\d.]+ s  (.+): (\w+) (\w+) (came|went)$", done.stdout, re.MULTILINE)
    came = {(phase, kind): node for phase, kind, node, what in events if what == "came"}
    went = [node for _, _, node, what in events if what == "went"]
    rollouts = [node for phase, kind, node, what in events if (phase, kind, what) == ("write", "rollout", "came")]
    assert len(rollouts) >= 2
    assert all(went.index(rollout) < went.index(came["train", "trainer"]) for rollout in rollouts)
    assert sorted(went) == sorted(node for _, kind, node, what in events if what == "came" and kind != "head")
    assert json.loads(outcome) == {"each_block_once": True, "same_again": True, "same_with_new": False}
