"""What a cluster lacks for a plan: what is short, how much there is, and which keys to change."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.estimates import DRIVER_GIB, engine_memory_gib
from medcritical_ray.planning.gpu_memory import EngineMemory, TrainerMemory, engine_memory
from medcritical_ray.planning.placement import Claim, Node, label_shortfalls
from medcritical_ray.planning.plan import Plan, engines_claim, memory_terms


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterResources:
    """What a cluster has, with the disk at the run's directory: in all, and node by node.

    `object_store_gib` and `gpu_memory_gib` are those of the node and the GPU that have least. None if unknown.
    A cluster that `grows` brings machines as they are asked for; what it has now says nothing of what it will have.
    """

    num_cpus: float
    num_gpus: float
    memory_gib: float
    disk_gib: float
    object_store_gib: float | None = None
    gpu_memory_gib: float | None = None
    nodes: tuple[Node, ...] | None = None
    grows: bool = False

    @property
    def is_one_machine(self) -> bool:
        """Whether there is one, and no other will come."""
        return self.nodes is not None and len(self.nodes) == 1 and not self.grows


def check_fit(plan: Plan, resources: ClusterResources) -> None:
    """Raises UserError with what the cluster lacks for the plan, if anything."""
    shortfalls = compare(plan, resources)
    if shortfalls:
        raise UserError("the plan does not fit the cluster: " + "; ".join(shortfalls))


def compare(plan: Plan, resources: ClusterResources) -> list[str]:
    """What the cluster lacks for the plan, one line each."""
    of_machines = [] if resources.grows else _shortfalls_of_machines(plan, resources)
    of_gpus = _gpu_memory_shortfalls(plan, resources.gpu_memory_gib)
    return [*of_machines, *_shortfalls_of_any_number(plan, resources), *of_gpus]


def check_engines_fit(
    served: Sequence[tuple[Config, ModelSize]], num_engines: int, resources: ClusterResources, *, knob: str
) -> None:
    """Raises UserError, naming what is short and what to change, if engines do not fit that serve one of these models
    at a time, each with its config, and train none. `knob` is the key that says how many engines there are."""
    config = served[0][0]
    claim = engines_claim(config, num_engines, max(engine_memory_gib(*each) for each in served), knob)
    shortfalls = [] if resources.grows else list(_shortfalls_of_engines(claim, resources))
    if config.engines.num_gpus and resources.gpu_memory_gib:
        largest = max((engine_memory(*each) for each in served), key=EngineMemory.needed_gib)
        shortfalls += engine_shortfalls(largest, resources.gpu_memory_gib)
    if shortfalls:
        raise UserError("the engines do not fit the cluster: " + "; ".join(shortfalls))


def _shortfalls_of_engines(claim: Claim, resources: ClusterResources) -> Iterator[str]:
    lower = f"lower {claim.knobs} or engines"
    for_gpus = f"{lower}.num_gpus" if resources.num_gpus else "to run on CPUs, set engines.num_gpus = 0"
    for what, unit, needed, there, remedy in (
        ("CPUs", "", claim.num_cpus, resources.num_cpus, f"{lower}.num_cpus"),
        ("GPUs", "", claim.num_gpus, resources.num_gpus, for_gpus),
        ("memory", " GiB", claim.memory_gib + DRIVER_GIB, resources.memory_gib, f"{lower}.kv_cache_gib"),
    ):
        if needed > there:
            yield f"{what}: {needed:.3g}{unit} needed, {there:.3g}{unit} there: {remedy}"
    yield from label_shortfalls([claim], resources.nodes)


def _shortfalls_of_machines(plan: Plan, resources: ClusterResources) -> Iterator[str]:
    if plan.num_cpus > resources.num_cpus:
        knobs = "engines.num_engines, engines.num_cpus, trainers.num_workers or trainers.num_cpus"
        yield f"CPUs: {plan.num_cpus:g} needed, {resources.num_cpus:g} there: lower {knobs}"
    if plan.num_gpus > resources.num_gpus:
        knobs = "lower engines.num_engines, engines.num_gpus, trainers.num_workers or trainers.num_gpus"
        if not resources.num_gpus:
            knobs = "to run on CPUs, set engines.num_gpus = 0 and trainers.num_gpus = 0"
        yield f"GPUs: {plan.num_gpus} needed, {resources.num_gpus:g} there: {knobs}"
    yield from label_shortfalls([plan.engines_claim, plan.trainers_claim], resources.nodes)
    if plan.memory_gib > resources.memory_gib:
        needed = f"{plan.memory_gib:.1f} GiB needed ({memory_terms(plan)})"
        knobs = "engines.num_engines, engines.kv_cache_gib or trainers.num_workers"
        yield f"memory: {needed}, {resources.memory_gib:.1f} GiB there: lower {knobs}"


def _shortfalls_of_any_number(plan: Plan, resources: ClusterResources) -> Iterator[str]:
    if any(use.num_workers > 1 for use in plan.gpu_uses):
        knobs = "raise trainers.num_gpus above 0.5, or set trainers.num_workers = 1"
        yield f"GPUs: two training workers may come to lie on one, which NCCL refuses: {knobs}"
    store_gib = None if resources.is_one_machine else resources.object_store_gib  # one machine reads from its disk
    if store_gib is not None and plan.object_store_gib > store_gib:
        needed = f"{plan.object_store_gib:.2f} GiB needed for a weight update"
        knobs = "raise cluster.object_store_mib, or set dpo.method = 'lora'"
        yield f"object store: {needed}, {store_gib:.2f} GiB there: {knobs}"
    if plan.disk_gib > resources.disk_gib:
        knobs = "set run.keep_policies, lower run.num_iterations or correct.num_corrections, or move run.directory"
        yield f"disk: {plan.disk_gib:.1f} GiB needed, {resources.disk_gib:.1f} GiB there: {knobs}"


def engine_shortfalls(engine: EngineMemory, there: float) -> Iterator[str]:
    """What its share of a GPU of this size lacks for one engine: one line at most."""
    if engine.needed_gib() > engine.gpu_share * there:
        needed = f"{engine.needed_gib():.1f} GiB needed for an engine's weights, work and one sequence"
        knobs = "raise engines.gpu_memory_utilization or engines.tensor_parallel_size, or lower engines.max_model_len"
        yield f"GPU memory: {needed}, {engine.gpu_share:g} of {there:.1f} GiB there: {knobs}"


def _gpu_memory_shortfalls(plan: Plan, there: float | None) -> list[str]:
    """Of one engine and of one training worker, or else of what shares a GPU. Where a GPU's memory is unknown, only of
    what no GPU would carry."""
    alone = list(_alone(plan, there)) if there else []
    if alone:
        return alone
    least = plan.least_gpu_gib()
    too_much = math.isinf(least) or (there is not None and least > there)
    return [_shared_shortfall(plan, there)] if too_much else []


def _alone(plan: Plan, there: float) -> Iterator[str]:
    if plan.engine:
        yield from engine_shortfalls(plan.engine, there)
    if plan.trainer and plan.trainer.needed_gib > there:
        needed = f"{plan.trainer.needed_gib:.1f} GiB needed per training worker"
        yield f"GPU memory: {needed}, {there:.1f} GiB there: {_knobs(plan.trainer)}"


def _shared_shortfall(plan: Plan, there: float | None) -> str:
    use = max(plan.gpu_uses, key=lambda use: use.least_gpu_gib(plan.engine, plan.trainer))
    parts = []
    if use.num_engines and plan.engine:
        parts.append(f"{use.num_engines} x {plan.engine.gpu_share:g} of it for engines")
    if use.num_workers and plan.trainer:
        parts.append(f"{use.num_workers} x {plan.trainer.needed_gib:.1f} GiB for training workers")
    size = "a GPU" if there is None else f"a GPU of {there:.1f} GiB"
    knobs = "lower engines.gpu_memory_utilization or trainers.max_tokens_per_forward"
    whole = "raise engines.num_gpus or trainers.num_gpus, so that fewer share it"
    return f"GPU memory: {' and '.join(parts)} share {size}: {knobs}, or {whole}"


def _knobs(trainer: TrainerMemory) -> str:
    """What lowers the largest part of a training worker's memory."""
    state_gib = trainer.weights_gib + trainer.gradients_gib + trainer.moments_gib
    if trainer.activations_gib + trainer.logits_gib < state_gib:
        return "set sft.method and dpo.method to 'lora', or take a smaller student.path"
    if not trainer.gradient_checkpointing:
        return "set trainers.gradient_checkpointing = true, or lower trainers.max_tokens_per_forward"
    lengths = "sft.max_length_tokens and dpo.max_length_tokens, since a pass holds at least one pair"
    return f"lower trainers.max_tokens_per_forward, and {lengths}"
