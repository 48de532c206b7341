"""Where runs lie: paths, and URIs that name no secrets."""

from pathlib import Path

import pytest

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.opening import run_path
from medcritical_ray.store.locations import check_outlives_job, is_uri, join_uri, runs_root

URI = "s3://bucket/runs?endpoint_override=http://127.0.0.1:9000&region=x"


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("runs", False),
        ("/mnt/runs", False),
        ("C", False),
        ("file:///mnt/runs", False),
        ("s3://bucket", True),
        ("s3:/bucket", True),
        ("gs://bucket/runs", True),
    ],
)
def test_a_uri_of_an_object_store_is_told_from_a_path(directory: str, expected: bool):
    assert is_uri(directory) is expected


def test_a_file_s_uri_is_a_path_in_other_words():
    assert runs_root("file:///mnt/my%20runs") == Path("/mnt/my runs")


def test_what_lies_below_a_uri_keeps_its_query():
    assert join_uri(URI, "demo") == "s3://bucket/runs/demo?endpoint_override=http://127.0.0.1:9000&region=x"
    assert join_uri("s3://bucket", "demo") == "s3://bucket/demo"


def test_working_copies_of_two_uris_lie_apart_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mine, other = (Config.model_validate({"run": {"directory": uri}}) for uri in (URI, "s3://other/runs"))
    assert run_path(mine).parent.parent == tmp_path / "medcritical"
    assert run_path(mine).name == "demo"
    assert run_path(mine) != run_path(other)


@pytest.mark.parametrize(
    "directory",
    [
        "s3://me:verysecret@bucket/runs",
        "s3://verysecret@bucket",
        "abfs://c@a.dfs.core.windows.net/x?client_secret=verysecret",
    ],
)
def test_a_secret_in_a_uri_is_refused_and_not_repeated(directory: str):
    with pytest.raises(ValueError, match=r"run\.directory: must hold no user, password or key") as refused:
        Config.model_validate({"run": {"directory": directory}})
    assert "verysecret" not in refused.value.errors()[0]["msg"]


def test_an_azure_container_is_no_secret():
    Config.model_validate({"run": {"directory": "abfs://container@account.dfs.core.windows.net/runs"}})


def test_a_job_writes_to_no_relative_path():
    with pytest.raises(UserError, match=r"^run\.directory = 'runs' is gone with the job.*: must be an absolute path"):
        check_outlives_job("run.directory", "runs")
    for kept in ("/mnt/runs", URI, "file:///mnt/runs"):
        check_outlives_job("run.directory", kept)
