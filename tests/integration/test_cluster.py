"""How a job finds its cluster."""

import socket
from pathlib import Path

import pytest
import ray

from actors.cluster import connected
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import UserError, WaitTimeout

pytestmark = pytest.mark.integration


@pytest.fixture
def no_ray_yet() -> None:
    if ray.is_initialized():
        pytest.skip("Ray is initialised in this process")


def test_a_cluster_that_does_not_answer_ends_the_wait_in_time(no_ray_yet: None, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = ClusterConfig(address=f"127.0.0.1:{taken.getsockname()[1]}", connect_timeout_s=0.2)
        message = r"after 0\.2 s \(.*\): check cluster\.address and RAY_ADDRESS, or raise cluster\.connect_timeout_s"
        with pytest.raises(WaitTimeout, match=message), connected(config, tmp_path):
            pass


def test_an_address_that_is_none_is_the_users_to_mend(no_ray_yet: None, tmp_path: Path):
    config = ClusterConfig(address="nonsense")
    with pytest.raises(UserError, match=r"at nonsense \(cluster\.address, RAY_ADDRESS\)"), connected(config, tmp_path):
        pass


def test_a_ray_that_is_there_is_used_and_left_running(ray_cluster: None, tmp_path: Path):
    with connected(ClusterConfig(), tmp_path / "not" / "yet") as resources:
        assert (resources.num_cpus, resources.gpu_memory_gib) == (4, None)
        assert 0 < resources.object_store_gib <= 0.2
        assert resources.memory_gib > 0
    assert ray.is_initialized()
