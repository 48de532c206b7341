"""The files in cluster/ as Ray reads them: what kinds of nodes they make, how many at most, with which labels."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]
OWN_MACHINES = CLUSTER / "own_machines.yaml"
KUBERAY = sorted((CLUSTER / "kuberay").glob("ray*.yaml"))
STORAGE = CLUSTER / "kuberay" / "storage.yaml"
FULL = [*CLOUDS, CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"]
"""Those that make every kind of node, and say what it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeType:
    resources: dict[str, int]
    labels: dict[str, str]
    max_workers: int


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


def ray_cluster_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec"), "RayService": spec.get("rayClusterConfig")}[
        manifest["kind"]
    ]


def node_types(path: Path) -> dict[str, NodeType]:
    """The kinds of nodes by name; the head's is `head`."""
    config = read(path)
    if "kind" in config:
        resource = {"metadata": {"namespace": "default", "name": "x"}, "spec": ray_cluster_spec(config)}
        config = _derive_autoscaling_config_from_ray_cr(resource)
    types = {name.replace("headgroup", "head"): of for name, of in config["available_node_types"].items()}
    return {
        name: NodeType(resources=of["resources"], labels=of["labels"], max_workers=of.get("max_workers", 1))
        for name, of in types.items()
    }


def labels_of_own_machine(address: str, directory: Path) -> str:
    """What a machine with this address tells Ray of its labels: its start command is run, with a `ray` that prints."""
    for name, script in (("ray", 'echo "$*"'), ("hostname", f"echo 172.17.0.1 {address}")):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    command = read(OWN_MACHINES)["worker_start_ray_commands"][-1]
    command = command.replace("/shared/medcritical/code/.venv/bin", str(directory))
    environment = {"PATH": os.environ["PATH"], "RAY_HEAD_IP": "10.0.0.10"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    (labels,) = [word for word in done.stdout.split() if word.startswith("--labels=")]
    return labels.removeprefix("--labels=")
