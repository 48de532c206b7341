"""What `medcritical serve` refuses before anything starts."""

import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.serve import application, check_port, check_replicas_fit, run_and_config, who_may_ask
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.planning.fit import ClusterResources
from medcritical_ray.planning.placement import Node
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.record import new_record
from medcritical_ray.serving.keys import is_authorized


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has published one policy."""
    config = Config().model_dump(mode="json")
    run = RunDirectory.create(tmp_path / "run", new_record(config), resume_command="")
    PolicyStore(run.policies).publish(0, base_student_dir(), parent=None, metrics={})
    return run


def test_a_run_is_served_with_its_config_and_what_is_set(run: RunDirectory):
    path, config = run_and_config(run.path, ["serve.max_tokens=7"])
    assert path.path == run.path.resolve()
    assert config == Config.model_validate({"serve": {"max_tokens": 7}})


def test_a_directory_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--run", str(tmp_path)]) == 2
    assert "no run there" in capsys.readouterr().err


def test_a_run_without_policies_is_refused(tmp_path: Path):
    run = RunDirectory.create(tmp_path / "run", new_record({}), resume_command="")
    with pytest.raises(UserError, match="has published no policy yet"):
        run_and_config(run.path, [])


def test_a_wrong_setting_is_refused(run: RunDirectory):
    with pytest.raises(UserError, match=r"^--set: serve.max_token: unknown key, did you mean serve.max_tokens\?"):
        run_and_config(run.path, ["serve.max_token=7"])


def test_without_a_file_of_keys_a_new_one_is_told_and_its_digest_kept():
    [digest], [told] = who_may_ask(None)
    key = re.fullmatch(r"key, told this once: (mc-[\w-]{43}) \(--api-key-file takes keys of your own\)", told)
    assert key
    assert is_authorized(f"Bearer {key[1]}", [digest])
    assert who_may_ask(None)[1] != [told]


def test_of_a_file_of_keys_nothing_is_told(tmp_path: Path):
    (tmp_path / "keys").write_text("a-key\n")
    assert who_may_ask(tmp_path / "keys") == (tmp_path / "keys", [])


def test_keys_are_read_before_anything_starts(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        who_may_ask(tmp_path / "keys")


def test_a_port_that_another_has_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen there"):
        check_port("127.0.0.1", taken.getsockname()[1])


def test_a_port_that_another_has_is_refused_before_a_cluster_is_started(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--run", str(run.path), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen there" in capsys.readouterr().err.splitlines()[0]


CLUSTER = ClusterResources(num_cpus=2, num_gpus=1, memory_gib=8, disk_gib=8, object_store_gib=1, gpu_memory_gib=80)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"serve": {"num_replicas": 2}}, "GPUs: 2 needed, 1 there: lower serve.num_replicas or engines.num_gpus; "),
        ({"serve": {"num_replicas": 2}}, "memory: 9 GiB needed, 8 GiB there: lower serve.num_replicas or engines.kv_"),
        ({"engines": {"labels": {"role": "engine"}}}, "engines: no node is labelled role=engine: start some with"),
        ({"engines": {"gpu_memory_utilization": 0.01}}, "GPU memory: "),
    ],
)
def test_engines_that_the_cluster_has_no_room_for_are_refused(run: RunDirectory, values: dict[str, Any], missing: str):
    node = Node(labels={}, num_cpus=2, num_gpus=1, memory_gib=8)
    cluster = replace(CLUSTER, nodes=(node,))
    check_replicas_fit(run, Config(), cluster)
    with pytest.raises(UserError, match=f"the engines do not fit the cluster: .*{re.escape(missing)}"):
        check_replicas_fit(run, Config.model_validate(values), cluster)


def test_machines_that_come_as_they_are_asked_for_are_not_missed(run: RunDirectory):
    config = Config.model_validate({"serve": {"num_replicas": 2}, "engines": {"labels": {"role": "engine"}}})
    check_replicas_fit(run, config, replace(CLUSTER, num_gpus=0, gpu_memory_gib=None, nodes=(), grows=True))


@pytest.mark.parametrize("args", [{}, {"run": "runs/demo"}, {"run": "runs/demo", "api_key_file": "f", "port": 1}])
def test_an_application_of_a_cluster_is_given_a_run_and_keys(args: dict[str, Any]):
    with pytest.raises(UserError, match="args: must be run, api_key_file and perhaps set"):
        application(args)
