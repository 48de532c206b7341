"""`medcritical serve` on a cluster whose Serve has applications of others: these stay, and one line says what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.serve import serving
from medcritical_ray.addresses import free_port
from medcritical_ray.config import Config
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.run.directory import RunDirectory

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def port(ray_cluster: None) -> Iterator[int]:
    """That of a Serve whose application `theirs` is at /."""
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Theirs:
        def __call__(self) -> str:
            return "theirs"

    number = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": number})
    serve.run(Theirs.bind(), name="theirs")
    yield number
    assert serve.status().applications.keys() == {"theirs"}
    serve.shutdown()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "keys").write_text("a-key\n")
    return tmp_path / "keys"


def serve_run(name: str, port: int, keys: Path) -> None:
    with serving(RunDirectory(Path("/runs") / name), Config(), "127.0.0.1", port, keys):
        pytest.fail("it is served")


def test_an_application_of_the_same_name_is_not_replaced(port: int, keys: Path):
    with pytest.raises(
        UserError, match=r"^Serve has an application 'theirs' on this cluster already: end that one, or"
    ):
        serve_run("theirs", port, keys)


def test_an_application_at_the_same_prefix_is_told_in_one_line(port: int, keys: Path):
    with pytest.raises(
        UserError, match=r'^Prefix / is being used by application "theirs"\. .*\. End the other one, or'
    ):
        serve_run("ours", port, keys)


def test_another_address_than_that_of_the_serve_that_runs_is_told_before_an_engine_starts(port: int, keys: Path):
    with pytest.raises(
        RunFailed, match=r"nobody listens at --host 127\.0\.0\.1 --port 9 .*: name that, or shut it down"
    ):
        serve_run("ours", 9, keys)
