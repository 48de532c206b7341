"""What `medcritical submit` compares with the cluster before it sends anything."""

import json
from pathlib import Path

import pytest

from jobs.submit import check_plan
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.planning.fit import ClusterResources


class Server:
    """A job server whose cluster has no machine but the head now."""

    def resources(self, *, grows: bool) -> ClusterResources:
        return ClusterResources(num_cpus=0, num_gpus=0, memory_gib=8, disk_gib=99, nodes=(), grows=grows)


def config_of(student: Path, **cluster: bool) -> Config:
    return Config.model_validate({"student": {"path": str(student)}, "cluster": cluster})


def test_a_plan_is_made_of_a_config_json_alone(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(
        UserError, match=r"the plan does not fit the cluster: CPUs: 2 needed, 0 there: .*; GPUs: 2 needed, 0 there"
    ):
        check_plan(config_of(tmp_path), Server())


def test_machines_that_come_as_they_are_asked_for_are_not_missed(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    check_plan(config_of(tmp_path, autoscales=True), Server())


def test_a_student_that_is_only_there_is_left_to_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    check_plan(config_of(tmp_path / "elsewhere"), Server())
    assert capsys.readouterr().err.startswith("not checked from here whether the plan fits: ")
