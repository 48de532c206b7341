"""Where engines and training workers may lie: on the nodes that carry the labels which the config asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Labels = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster: its labels, and what Ray has of it for actors."""

    labels: Labels
    num_cpus: float
    num_gpus: float
    memory_gib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What engines, or training workers, take together of the nodes that carry `labels`.

    `part` is the part of the config that says so, `knobs` are its keys that lower it.
    """

    who: str
    part: str
    labels: Labels
    num_cpus: float
    num_gpus: float
    memory_gib: float
    knobs: str


def carry(node: Node, labels: Labels) -> bool:
    return labels.items() <= node.labels.items()


def written(labels: Labels) -> str:
    """Labels as `ray start --labels` takes them."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def exclude_each_other(some: Labels, others: Labels) -> bool:
    """Whether no node can carry both."""
    return any(others.get(key, value) != value for key, value in some.items())


def label_shortfalls(claims: Sequence[Claim], nodes: Sequence[Node] | None) -> list[str]:
    """What the labelled nodes lack, one line each; nothing where nodes are unknown. Claims that any node can meet are
    for the whole cluster to meet.

    If each claim can be met by itself, all are compared with the nodes that may hold any of them: some nodes may carry
    the labels of two.
    """
    if nodes is None:
        return []
    labelled = [claim for claim in claims if claim.labels]
    alone = [line for claim in labelled for line in _shortfalls([claim], nodes)]
    return alone or (list(_shortfalls(labelled, nodes)) if len(labelled) > 1 else [])


def _shortfalls(claims: Sequence[Claim], nodes: Sequence[Node]) -> Iterator[str]:
    there = [node for node in nodes if any(carry(node, claim.labels) for claim in claims)]
    who = " and ".join(claim.who for claim in claims)
    where = " or ".join(written(claim.labels) for claim in claims)
    keys = " and ".join(f"{claim.part}.labels" for claim in claims)
    if not there:
        yield f"{who}: no node is labelled {where}: start some with `ray start --labels={where}`, or change {keys}"
        return
    knobs = ", ".join(claim.knobs for claim in claims)
    for what, unit, needed, found in _sums(claims, there):
        if needed > found:
            on = f"{found:.4g}{unit} there on the nodes labelled {where}"
            yield f"{what} for {who}: {needed:.4g}{unit} needed, {on}: label more nodes ({keys}), or lower {knobs}"


def _sums(claims: Sequence[Claim], nodes: Sequence[Node]) -> Iterator[tuple[str, str, float, float]]:
    """Of each resource its name, unit, what is claimed and what there is."""
    for what, unit, name in (("CPUs", "", "num_cpus"), ("GPUs", "", "num_gpus"), ("memory", " GiB", "memory_gib")):
        yield what, unit, sum(getattr(claim, name) for claim in claims), sum(getattr(node, name) for node in nodes)
