"""cluster/: every file is what Ray, KubeRay and Kubernetes take, and agrees with the config that it is made for."""

import argparse
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from cluster_files import (
    CLOUDS,
    CLUSTER,
    FULL,
    KUBERAY,
    OWN_MACHINES,
    ROOT,
    STORAGE,
    NodeType,
    labels_of_own_machine,
    node_types,
    ray_cluster_spec,
    read,
)
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema
from referencing import Registry, Resource

import medcritical_ray
from jobs.self_play import add_arguments
from medcritical_ray.config_files import load_config
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.fit import ClusterResources, compare
from medcritical_ray.planning.placement import Node, carry, exclude_each_other
from medcritical_ray.planning.plan import make_plan

pytestmark = pytest.mark.integration

README = CLUSTER / "README.md"
CONFIG_FILE = ROOT / "jobs" / "configs" / "qwen2.5_7b_cmexam_cluster.toml"
CONFIG = load_config(CONFIG_FILE, [])
SEVEN_B = ModelSize(num_parameters=7_615_616_512, num_bytes=15_231_233_024)
GROUPS = {"head", "trainers", "engines", "cpu"}


@pytest.fixture(scope="module")
def schemas() -> Registry:
    """KubeRay's fields and Kubernetes' own, both without room for others."""
    kubernetes = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.34.0-local-strict" / "_definitions.json"
    ours = yaml.safe_load((ROOT / "tests" / "data" / "kuberay_v1.6.2.yaml").read_text("utf-8"))
    contents = [json.loads(kubernetes.read_text("utf-8")), ours]
    return Registry().with_resources([(each["$id"], Resource.from_contents(each)) for each in contents])


def check(manifest: dict[str, Any], schemas: Registry, reference: str) -> None:
    Draft202012Validator({"$ref": reference}, registry=schemas).validate(manifest)


def nodes_at_most(types: dict[str, NodeType]) -> tuple[Node, ...]:
    """All nodes of the largest cluster; their memory is not what the files are about."""
    return tuple(
        Node(labels=of.labels, num_cpus=of.resources["CPU"], num_gpus=of.resources.get("GPU", 0), memory_gib=10_000)
        for of in types.values()
        for _ in range(of.max_workers)
    )


def cluster_of(nodes: tuple[Node, ...], *, grows: bool = False) -> ClusterResources:
    return ClusterResources(
        num_cpus=sum(node.num_cpus for node in nodes),
        num_gpus=sum(node.num_gpus for node in nodes),
        memory_gib=10_000,
        disk_gib=10_000,
        nodes=nodes,
        grows=grows,
    )


def config_path(path: str) -> Path:
    """A config's path in the image, as it is here."""
    (directory,) = re.findall(r"^WORKDIR (\S+)$", (CLUSTER / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    return ROOT / Path(path).relative_to(directory)


@pytest.mark.parametrize("path", [*CLOUDS, OWN_MACHINES], ids=lambda path: path.name)
def test_ray_up_takes_every_cluster_file(path: Path):
    prepared = prepare_config(read(path))
    validate_config(prepared)
    assert prepared["provider"]["type"] == {"aws": "aws", "gcp": "gcp", "own_machines": "local"}[path.stem]


def test_a_misspelt_key_of_a_cluster_file_is_refused():
    config = prepare_config(read(CLOUDS[0]))
    config["available_node_types"]["engines"]["lables"] = {"a": "b"}
    with pytest.raises(ValidationError, match="lables"):
        validate_config(config)


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_every_manifest_has_only_fields_that_kuberay_and_kubernetes_know(path: Path, schemas: Registry):
    manifest = read(path)
    check(manifest, schemas, f"https://ray.io/v1#/$defs/{manifest['kind']}")


def test_the_shared_storage_is_what_kubernetes_takes(schemas: Registry):
    definition = "io.k8s.api.core.v1.PersistentVolumeClaim"
    check(read(STORAGE), schemas, f"https://kubernetes.io/api/_definitions.json#/$defs/{definition}")


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ((), "specs"),
        (("spec",), "autoscalerOption"),
        (("spec", "authOptions"), "token"),
        (("spec", "workerGroupSpecs", 0), "maxreplicas"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0), "volumeMount"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources"), "request"),
    ],
)
def test_a_misspelt_field_of_a_manifest_is_refused(where: tuple, field: str, schemas: Registry):
    manifest = inner = read(CLUSTER / "kuberay" / "raycluster.yaml")
    for key in where:
        inner = inner[key]
    inner[field] = "x"
    with pytest.raises(ValidationError, match=rf"'{field}' was unexpected"):
        check(manifest, schemas, "https://ray.io/v1#/$defs/RayCluster")


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.name)
def test_every_cluster_has_the_same_groups_and_each_is_labelled_by_its_name(path: Path):
    types = node_types(path)
    assert types.keys() == GROUPS
    assert {name: of.labels for name, of in types.items()} == {name: {"medcritical_role": name} for name in GROUPS}


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.name)
def test_no_actor_of_a_run_can_lie_on_the_head(path: Path):
    assert node_types(path)["head"].resources["CPU"] == 0
    assert "GPU" not in node_types(path)["head"].resources


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.name)
def test_the_plan_of_the_cluster_config_fits_every_cluster_at_its_largest(path: Path):
    assert compare(make_plan(CONFIG, SEVEN_B), cluster_of(nodes_at_most(node_types(path)))) == []


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.name)
def test_engines_and_training_workers_of_the_cluster_config_share_no_kind_of_node(path: Path):
    nodes = [Node(labels=of.labels, num_cpus=0, num_gpus=0, memory_gib=0) for of in node_types(path).values()]
    for labels in (CONFIG.engines.labels, CONFIG.trainers.labels):
        assert sum(carry(node, labels) for node in nodes) == 1
    assert exclude_each_other(CONFIG.engines.labels, CONFIG.trainers.labels)


def test_machines_of_ones_own_are_told_what_they_are_for(tmp_path: Path):
    addresses = read(OWN_MACHINES)["provider"]["worker_ips"]
    labels = [labels_of_own_machine(address, tmp_path) for address in addresses]
    assert labels == [f"medcritical_role={name}" for name in ("trainers", "engines", "engines", "cpu")]
    assert "--labels=medcritical_role=head" in read(OWN_MACHINES)["head_start_ray_commands"][-1]
    assert "--num-cpus=0" in read(OWN_MACHINES)["head_start_ray_commands"][-1]


def test_the_plan_fits_the_machines_of_ones_own_as_the_readme_says_and_no_more_engines_do(tmp_path: Path):
    words = r"--set (cluster\.autoscales=false) --set engines\.num_engines=(\d)`"
    setting, num_engines = re.search(words, README.read_text("utf-8")).groups()
    addresses = read(OWN_MACHINES)["provider"]["worker_ips"]
    roles = [labels_of_own_machine(address, tmp_path).partition("=")[2] for address in addresses]
    num_gpus = {"trainers": 8, "engines": 1}
    nodes = tuple(
        Node(labels={"medcritical_role": role}, num_cpus=64, num_gpus=num_gpus.get(role, 0), memory_gib=10_000)
        for role in roles
    )

    def fits(num_engines: int) -> bool:
        config = load_config(CONFIG_FILE, [setting, f"engines.num_engines={num_engines}"])
        return not compare(make_plan(config, SEVEN_B), cluster_of(nodes, grows=config.cluster.autoscales))

    assert [fits(int(num_engines)), fits(int(num_engines) + 1)] == [True, False]


def test_only_engines_are_on_machines_that_may_be_taken_away():
    aws, gcp = (read(path)["available_node_types"] for path in CLOUDS)
    assert [name for name, of in aws.items() if "InstanceMarketOptions" in of["node_config"]] == ["engines"]
    spot = {name for name, of in gcp.items() if of["node_config"].get("scheduling", {}).get("provisioningModel")}
    assert spot == {"engines"}


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_every_manifest_asks_for_a_token_and_for_the_autoscaler_that_knows_labels(path: Path):
    spec = ray_cluster_spec(read(path))
    assert spec["authOptions"] == {"mode": "token", "secretName": "medcritical-token"}
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["rayVersion"] == ray.__version__


@pytest.mark.parametrize("path", [*CLOUDS, OWN_MACHINES], ids=lambda path: path.name)
def test_every_cluster_file_brings_the_token_and_shows_the_dashboard_to_nobody(path: Path):
    config = read(path)
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    by_image = "RAY_AUTH_MODE=token" in (CLUSTER / "Dockerfile").read_text("utf-8") and "docker" in config
    assert by_image or all("RAY_AUTH_MODE=token" in command for command in commands)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_machines_on_aws_are_in_a_group_of_the_operator_s_own():
    """Into a group without rules, which it makes where none is named, Ray writes that everybody may log in."""
    config = read(CLUSTER / "aws.yaml")
    groups = [of["node_config"]["SecurityGroupIds"] for of in config["available_node_types"].values()]
    assert groups == [["sg-00000000000000000"]] * len(GROUPS)
    assert "security_group" not in config["provider"]


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_containers_are_shown_the_gpus_of_their_machines(path: Path):
    """Ray adds NVIDIA's runtime, which shows what the container's environment asks for: nothing, in a plain image."""
    options = " ".join(read(path)["docker"]["run_options"]).split()
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(options)


def test_every_cluster_runs_the_same_image():
    images = {read(path)["docker"]["image"] for path in CLOUDS}
    for path in KUBERAY:
        spec = ray_cluster_spec(read(path))
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        images |= {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert images == {f"example.org/medcritical_ray:{medcritical_ray.__version__}"}


def test_the_cluster_of_a_job_is_the_one_that_stays_and_starts_with_its_head_alone():
    stays, of_job = (ray_cluster_spec(read(CLUSTER / "kuberay" / f"{name}.yaml")) for name in ("raycluster", "rayjob"))
    assert of_job == stays
    assert {group["replicas"] for group in of_job["workerGroupSpecs"]} == {0}


def test_the_entrypoint_of_the_job_is_a_job_of_this_project_with_a_shipped_config():
    interpreter, minus_m, module, *arguments = shlex.split(
        read(CLUSTER / "kuberay" / "rayjob.yaml")["spec"]["entrypoint"]
    )
    assert [interpreter, minus_m, module] == ["python", "-m", "jobs.self_play"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    args = parser.parse_args(arguments)
    assert load_config(config_path(str(args.config)), args.set) == CONFIG


def test_what_is_read_and_written_lies_on_the_storage_that_every_node_mounts():
    paths = [CONFIG.run.directory, CONFIG.student.path, CONFIG.questions.path, CONFIG.questions.test_path]
    assert all(path.startswith("/shared/") for path in paths)
    for path in KUBERAY:
        spec = ray_cluster_spec(read(path))
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
            assert "/shared" in [mount["mountPath"] for mount in mounts]
    assert all("--volume /shared:/shared" in read(path)["docker"]["run_options"] for path in CLOUDS)


def test_the_service_serves_the_run_of_the_cluster_config_by_its_app_builder():
    service = read(CLUSTER / "kuberay" / "rayservice.yaml")["spec"]
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"])).applications
    assert application.import_path == "jobs.serve:application"
    assert application.args["run"] == f"{CONFIG.run.directory}/{CONFIG.run.name}"
    mounts = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(Path(application.args["api_key_file"]).parent) in [mount["mountPath"] for mount in mounts]


def test_the_service_has_nodes_for_the_engines_of_the_run():
    types = node_types(CLUSTER / "kuberay" / "rayservice.yaml")
    assert types.keys() == {"head", "engines"}
    assert types["engines"].labels == CONFIG.engines.labels
    assert types["engines"].resources["GPU"] >= CONFIG.engines.num_gpus


def test_the_image_copies_what_exists_and_installs_what_is_pinned():
    text = (CLUSTER / "Dockerfile").read_text("utf-8")
    sources = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"requirements/gpu.txt", "medcritical_ray", "actors", "jobs", "pyproject.toml"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    sent = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert sent == set(sources)
    assert "pip install --no-cache-dir --no-deps --requirement requirements/gpu.txt" in text
    assert f"ray=={ray.__version__}" in (ROOT / "requirements" / "gpu.txt").read_text("utf-8").splitlines()


def test_the_readme_speaks_of_every_file():
    text = README.read_text("utf-8")
    names = [path.name for path in CLUSTER.rglob("*") if path.is_file() and path.name != "README.md"]
    assert [name for name in names if name not in text] == []
