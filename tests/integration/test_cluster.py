"""How a job finds its cluster."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from actors.cluster import connected, stopped_by_sigterm
from actors.storage import _ask_all
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import Stopped, WaitTimeout

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


def refusal(address: str, timeout_s: float, **settings: str) -> str:
    """What connecting raises in a process of its own, where no Ray is initialised."""
    command = [sys.executable, "-c", CONNECT, address, str(timeout_s)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=120, check=True)
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


def test_sigterm_is_raised_where_a_cluster_is_in_use_and_only_once():
    def terminate_twice() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # what is done to end in time is not to be ended by the next

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), stopped_by_sigterm():
        terminate_twice()
    assert signal.getsignal(signal.SIGTERM) is before


TWO_NODES = """
import os, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from actors.storage import check_storage
from medcritical_ray.config import Config
from medcritical_ray.errors import MedCriticalError

size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, connect=True, head_node_args=size)
Path("elsewhere").mkdir()
os.chdir("elsewhere")  # the working directory of all that the second node starts
cluster.add_node(**size)
os.chdir("..")
for directory in sys.argv[1:]:
    try:
        check_storage(Config.model_validate({"run": {"directory": directory}}))
        print("shared")
    except MedCriticalError as error:
        print(f"{type(error).__name__}: {error}")
ray.shutdown()
cluster.shutdown()
"""


def test_a_directory_that_another_node_does_not_see_is_told_with_the_node(tmp_path: Path):
    not_shared = "/proc/self/cwd/runs"  # a path that is another directory to each process
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES, str(tmp_path / "runs"), not_shared, str(tmp_path / "file" / "runs")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        cwd=tmp_path,
    )
    shared, told, no_directory = [line for line in done.stdout.splitlines() if line[:6] in ("shared", "UserEr")]
    assert shared == "shared"
    assert "run.directory = '/proc/self/cwd/runs' is not shared by all nodes (" in told
    assert ": /proc/self/cwd/runs there is not the directory of the driver's machine)" in told
    assert list((tmp_path / "runs").iterdir()) == []
    assert no_directory.endswith("file/runs cannot be written (Not a directory): choose another run.directory")


def test_who_has_no_token_is_told_the_address_and_the_cause_in_one_line(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        address = f"127.0.0.1:{somebody.getsockname()[1]}"
        told = refusal(address, 60, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="", HOME=str(tmp_path))
    assert told.startswith(f"UserError: no Ray cluster answers at {address} (cluster.address, RAY_ADDRESS): ")
    assert "token" in told.lower()


def test_a_machine_that_is_lost_before_it_says_what_it_sees_is_told_by_its_address(ray_cluster: None, tmp_path: Path):
    gone = {"NodeID": "ab" * 28, "NodeManagerAddress": "10.0.0.3"}
    faults = _ask_all([gone], str(tmp_path), tmp_path / "probe", "token", 60)
    assert faults["10.0.0.3"].startswith("it could not be asked: ")


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
