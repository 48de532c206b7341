"""How a job finds its cluster."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from actors.cluster import connected
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import WaitTimeout

pytestmark = pytest.mark.integration


CONNECT = """
import sys
from pathlib import Path
from actors.cluster import connected
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import MedCriticalError

try:
    with connected(ClusterConfig(address=sys.argv[1], connect_timeout_s=float(sys.argv[2])), Path()):
        pass
except MedCriticalError as error:
    print(f"{type(error).__name__}: {error}")
"""


def refusal(address: str, timeout_s: float) -> str:
    """What connecting raises in a process of its own, where no Ray is initialised."""
    command = [sys.executable, "-c", CONNECT, address, str(timeout_s)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_cluster_that_does_not_answer_ends_the_wait_in_time():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = refusal(f"127.0.0.1:{taken.getsockname()[1]}", 0.2)
    message = r"after 0\.2 s \(.*\): check cluster\.address and RAY_ADDRESS, or raise cluster\.connect_timeout_s"
    assert told.startswith("WaitTimeout: ")
    assert re.search(message, told)


def test_a_cluster_of_its_own_that_does_not_start_in_time_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # as ray/_private/node.py does

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    message = r"could be started here in 0 s \(The current node timed out during startup\.\): .* set cluster\.address$"
    with pytest.raises(WaitTimeout, match=message), connected(ClusterConfig(), tmp_path):
        pass


def test_an_address_that_is_none_is_the_users_to_mend():
    told = refusal("nonsense", 60)
    assert told.startswith("UserError: ")
    assert "at nonsense (cluster.address, RAY_ADDRESS)" in told


def test_a_ray_that_is_there_is_used_and_left_running(ray_cluster: None, tmp_path: Path):
    with connected(ClusterConfig(), tmp_path / "not" / "yet") as resources:
        assert (resources.num_cpus, resources.gpu_memory_gib) == (4, None)
        assert [(node.num_cpus, node.num_gpus) for node in resources.nodes] == [(4, 0)]
        assert resources.nodes[0].memory_gib == pytest.approx(resources.memory_gib)
        assert 0 < resources.object_store_gib <= 0.2
        assert resources.memory_gib > 0
    assert ray.is_initialized()
