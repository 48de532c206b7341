"""A cluster of a head without CPUs, a node for engines and a node for training workers, in a process of its own; what
came of it, as JSON. `python labelled_cluster.py WORK_DIR POLICY_DIR`, with the tests' modules on the path."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray._private.state
from ray.cluster_utils import Cluster
from rows import pairs

from actors.cluster import connected
from actors.pool import EnginePool
from actors.train import fit
from actors.train_worker import DpoTask
from medcritical_ray.config import ClusterConfig, Config, DpoConfig, EnginesConfig, LoraConfig, TrainersConfig
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.fit import compare
from medcritical_ray.planning.plan import make_plan
from medcritical_ray.records import PreferencePair
from medcritical_ray.run.tables import write_part

ENGINES = EnginesConfig(
    num_engines=2, num_cpus=0.5, num_gpus=0, kv_cache_gib=0.1, labels={"medcritical_role": "engines"}
)
TRAINERS = TrainersConfig(
    num_workers=1, num_cpus=0.5, num_gpus=0, max_failures=0, timeout_s=240, labels={"medcritical_role": "trainers"}
)
DPO = DpoConfig(
    method="lora", lora=LoraConfig(rank=4, alpha=8), num_epochs=40, batch_size=8, max_length_tokens=32, early_stop=False
)
PATIENCE_S = 120


def add_node(cluster: Cluster, num_cpus: float, role: str) -> Any:
    options = {"memory": 2**32, "object_store_memory": 100 * 2**20}
    return cluster.add_node(num_cpus=num_cpus, labels={"medcritical_role": role}, include_dashboard=False, **options)


def shortfalls(cluster: Cluster, engines: EnginesConfig) -> list[str]:
    tiny = ModelSize(num_parameters=10**6, num_bytes=4 * 10**6)
    config = Config(engines=engines, trainers=TRAINERS)
    with connected(ClusterConfig(address=cluster.address), Path(sys.argv[1])) as resources:
        return compare(make_plan(config, tiny), resources)


def nodes_of(class_name: str) -> list[str]:
    """Where the living actors of a class are."""
    actors = ray._private.state.actors().values()
    return [
        actor["Address"]["NodeID"]
        for actor in actors
        if actor["ActorClassName"] == class_name and actor["State"] == "ALIVE"
    ]


def awaited_nodes_of(class_name: str, number: int) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while len(nodes_of(class_name)) < number and time.monotonic() < deadline:
        time.sleep(0.1)
    return nodes_of(class_name)


def main(work: Path, policy: Path) -> dict[str, Any]:
    cluster = Cluster()
    add_node(cluster, 0, "head")
    unlabelled = shortfalls(cluster, ENGINES)
    engine_node, trainer_node = add_node(cluster, 2, "engines"), add_node(cluster, 2, "trainers")
    told = {"without_nodes": unlabelled, "with_nodes": shortfalls(cluster, ENGINES)}
    write_part(work / "rows", 0, pairs(16), PreferencePair)
    steps: list[float] = []
    with connected(ClusterConfig(address=cluster.address), work):
        pool = EnginePool(ENGINES, 0, policy, name="spot")
        told["engines"] = awaited_nodes_of("EngineActor", 2)

        def lose_the_engines_once(metrics: dict[str, float]) -> None:
            if not steps:
                told["workers"] = nodes_of("RayTrainWorker")
                cluster.remove_node(engine_node, allow_graceful=False)
            steps.append(metrics["step"])

        figures = fit(
            DpoTask(policy_dir=policy, reference_dir=policy, config=DPO),
            work / "rows",
            work / "out",
            TRAINERS,
            name="dpo",
            seed=1,
            on_step=lose_the_engines_once,
        )
        pool.close()
    told |= {"engine_node": engine_node.node_id, "trainer_node": trainer_node.node_id}
    told |= {"first_steps": steps.count(1.0), "last_step": steps[-1], "num_steps": figures["num_steps"]}
    cluster.shutdown()
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
