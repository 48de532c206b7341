"""Labels: how the config writes them, and what the nodes that carry them may lack."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from medcritical_ray.config import Config
from medcritical_ray.config_files import dump_config, load_config
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.fit import ClusterResources, compare
from medcritical_ray.planning.placement import Node
from medcritical_ray.planning.plan import Plan, make_plan
from medcritical_ray.planning.plan_text import describe

GIB = 2**30
TINY = ModelSize(num_parameters=GIB // 4, num_bytes=GIB // 2)
ENGINE, TRAINER = {"role": "engine"}, {"role": "trainer"}


def config_of(engines: dict, trainers: dict) -> Config:
    """Two engines of a CPU and a GPU each, and three training workers of two CPUs and a GPU each."""
    return Config.model_validate(
        {
            "engines": {"num_engines": 2, "num_cpus": 1, "num_gpus": 1, **engines},
            "trainers": {"num_workers": 3, "num_cpus": 2, "num_gpus": 1, **trainers},
            "sft": {"batch_size": 3},
            "dpo": {"batch_size": 3},
        }
    )


def plan_of(engines: dict[str, str], trainers: dict[str, str]) -> Plan:
    return make_plan(config_of({"labels": engines}, {"labels": trainers}), TINY)


def node(num_gpus: float, memory_gib: float = 100, **labels: str) -> Node:
    return Node(labels=labels, num_cpus=8, num_gpus=num_gpus, memory_gib=memory_gib)


def cluster_of(*nodes: Node) -> ClusterResources:
    """A cluster that has enough of everything in all, wherever that may be."""
    return ClusterResources(num_cpus=99, num_gpus=99, memory_gib=999, disk_gib=999, nodes=nodes)


def test_labelled_nodes_that_have_enough_lack_nothing():
    cluster = cluster_of(node(2, role="engine"), node(3, role="trainer", zone="b"), node(0))
    assert compare(plan_of(ENGINE, TRAINER), cluster) == []


def test_only_nodes_that_carry_the_labels_are_counted():
    cluster = cluster_of(node(8), node(1, role="engine"), node(8, role="trainer"))
    assert compare(plan_of(ENGINE, TRAINER), cluster) == [
        "GPUs for engines: 2 needed, 1 there on the nodes labelled role=engine: label more nodes (engines.labels), or "
        "lower engines.num_engines"
    ]


def test_each_resource_that_labelled_nodes_lack_is_told():
    small = Node(labels=TRAINER, num_cpus=5, num_gpus=2, memory_gib=1)
    cpus, gpus, memory = compare(plan_of({}, TRAINER), cluster_of(node(8), small))
    assert cpus.startswith("CPUs for training workers: 6 needed, 5 there on the nodes labelled role=trainer: label")
    assert gpus.startswith("GPUs for training workers: 3 needed, 2 there on the nodes labelled role=trainer: label")
    assert memory.startswith("memory for training workers: 4.5 GiB needed, 1 GiB there on the nodes labelled ro")
    assert memory.endswith("label more nodes (trainers.labels), or lower trainers.num_workers")


def test_a_label_that_no_node_carries_is_told_with_the_command_that_sets_it():
    cluster = cluster_of(node(8, role="engine"), node(8, role="trainer", zone="b"))
    assert compare(plan_of(ENGINE, {"role": "trainer", "zone": "a"}), cluster) == [
        "training workers: no node is labelled role=trainer,zone=a: start some with `ray start "
        "--labels=role=trainer,zone=a`, or change trainers.labels"
    ]


def test_nodes_that_engines_and_workers_both_need_are_counted_once():
    both = node(4, role="engine", disk="fast")
    (shortfall,) = compare(plan_of(ENGINE, {"disk": "fast"}), cluster_of(both))
    assert shortfall == (
        "GPUs for engines and training workers: 5 needed, 4 there on the nodes labelled role=engine or disk=fast: "
        "label more nodes (engines.labels and trainers.labels), or lower engines.num_engines, trainers.num_workers"
    )
    assert compare(plan_of(ENGINE, {"disk": "fast"}), cluster_of(both, node(1, role="engine"))) == []


def test_without_labels_it_does_not_matter_where_the_gpus_are():
    assert compare(plan_of({}, {}), cluster_of(node(0))) == []


def test_labels_that_exclude_each_other_keep_engines_and_workers_from_sharing_a_gpu():
    half = {"num_gpus": 0.5}
    together = make_plan(config_of({"num_engines": 1, **half}, {"num_workers": 1, **half}), TINY)
    apart_config = config_of(
        {"num_engines": 1, "labels": ENGINE, **half}, {"num_workers": 1, "labels": TRAINER, **half}
    )
    apart = make_plan(apart_config, TINY)
    assert (together.num_gpus, apart.num_gpus) == (1, 2)
    assert (1, 1) in [(use.num_engines, use.num_workers) for use in together.gpu_uses]
    assert [(use.num_engines, use.num_workers) for use in apart.gpu_uses] == [(0, 1), (1, 0)]


def test_labels_of_two_keys_may_be_on_one_node_and_share_its_gpus():
    config = config_of(
        {"num_engines": 1, "num_gpus": 0.5, "labels": ENGINE},
        {"num_workers": 1, "num_gpus": 0.5, "labels": {"disk": "fast"}},
    )
    assert make_plan(config, TINY).num_gpus == 1


def test_a_plan_says_on_which_nodes_engines_and_workers_may_lie():
    engines, workers = describe(plan_of(ENGINE, {**TRAINER, "zone": "b"})).splitlines()[3:5]
    assert engines == "engines               2, on nodes labelled role=engine"
    assert workers == "training workers      3, on nodes labelled role=trainer,zone=b"


def test_a_plan_without_labels_says_nothing_of_nodes():
    assert "labelled" not in describe(plan_of({}, {}))


def test_labels_may_be_set_one_by_one_and_survive_being_written(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('[trainers]\nlabels = { "example.org/tier" = "on-demand" }\n')
    config = load_config(path, ["engines.labels.medcritical_role=engine"])
    assert config.engines.labels == {"medcritical_role": "engine"}
    assert config.trainers.labels == {"example.org/tier": "on-demand"}
    path.write_text(dump_config(config))
    assert load_config(path, []) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("role", "!spot"),
        ("role", "in(a,b)"),
        ("role", "a,b"),
        ("role", ""),
        ("role", "-a"),
        ("role", "a" * 64),
        ("", "a"),
        ("a b", "a"),
        ("Upper.case/role", "a"),
        ("a/b/c", "a"),
    ],
)
def test_labels_that_ray_would_not_take_or_read_as_operators_are_refused(key: str, value: str):
    with pytest.raises(ValidationError):
        config_of({"labels": {key: value}}, {})


def test_nodes_that_are_unknown_are_not_compared():
    assert compare(plan_of(ENGINE, TRAINER), replace(cluster_of(), nodes=None)) == []
    assert len(compare(plan_of(ENGINE, TRAINER), cluster_of())) == 2
