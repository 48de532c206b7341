"""What a run will need, computed before its first actor starts, and compared with what the cluster has.

Engines and training workers live at the same time on the same cluster: their CPUs, GPUs and memory add up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from medcritical_ray import estimates
from medcritical_ray.config import Config
from medcritical_ray.estimates import Rows
from medcritical_ray.model_files import ModelSize

DATA_CPUS = 1.0
"""CPUs that must stay free for Ray Data: where actors hold all of them, reading the pairs waits for ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will need. `*_memory_gib` is memory of the machines; `gpu_*` is per GPU, and 0 without one."""

    num_iterations: int
    rows: Rows
    num_engines: int
    num_workers: int
    num_cpus: float
    num_gpus: float
    engines_memory_gib: float
    trainers_memory_gib: float
    ray_memory_gib: float
    object_store_gib: float
    gpu_engine_weights_gib: float
    gpu_engine_share: float
    gpu_trainer_gib: float
    disk_gib: float

    @property
    def memory_gib(self) -> float:
        return self.engines_memory_gib + self.trainers_memory_gib + self.ray_memory_gib


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterResources:
    """What a cluster has, with the disk at the run's directory.

    `object_store_gib` and `gpu_memory_gib` are those of the node and the GPU that have least; None if unknown.
    """

    num_cpus: float
    num_gpus: float
    memory_gib: float
    disk_gib: float
    object_store_gib: float | None = None
    gpu_memory_gib: float | None = None


def make_plan(config: Config, model_size: ModelSize | None) -> Plan:
    """The plan of a run. Without the model's size, weights are those of a fresh student, or else count as nothing."""
    size = model_size or _size_without_files(config)
    engines, trainers = config.engines, config.trainers
    num_engines = engines.num_engines + engines.separate_corrector
    gpu_engine_weights = estimates.engine_weights_gib(config, size) / engines.tensor_parallel_size
    return Plan(
        num_iterations=config.run.num_iterations,
        rows=estimates.estimate_rows(config),
        num_engines=num_engines,
        num_workers=trainers.num_workers,
        num_cpus=num_engines * engines.num_cpus + trainers.num_workers * trainers.num_cpus + DATA_CPUS,
        num_gpus=num_engines * engines.num_gpus + trainers.num_workers * trainers.num_gpus,
        engines_memory_gib=num_engines * estimates.engine_memory_gib(config, size),
        trainers_memory_gib=trainers.num_workers * estimates.trainer_memory_gib(config, size),
        ray_memory_gib=estimates.DRIVER_GIB + config.cluster.object_store_mib / 1024,
        object_store_gib=estimates.broadcast_gib(config, size),
        gpu_engine_weights_gib=gpu_engine_weights if engines.num_gpus > 0 else 0.0,
        gpu_engine_share=engines.gpu_memory_utilization if engines.num_gpus > 0 else 0.0,
        gpu_trainer_gib=estimates.training_state_gib(config, size) if trainers.num_gpus > 0 else 0.0,
        disk_gib=estimates.disk_gib(config, size),
    )


def compare(plan: Plan, resources: ClusterResources) -> list[str]:
    """What the cluster lacks for the plan, one line each: what is short, how much there is, which keys to change."""
    return [*_shortfalls(plan, resources), *_gpu_memory_shortfalls(plan, resources)]


def describe(plan: Plan) -> str:
    """The plan as lines for a person."""
    rows = plan.rows
    lines = {
        "iterations": f"{plan.num_iterations}",
        "rows per iteration": f"{rows.num_questions:,} questions, {rows.num_attempts:,} attempts, "
        f"at most {rows.num_corrections:,} corrections and {rows.num_pairs:,} pairs",
        "engines": f"{plan.num_engines}",
        "training workers": f"{plan.num_workers}",
        "CPUs": f"{plan.num_cpus:g}, {DATA_CPUS:g} of them for Ray Data",
        "GPUs": f"{plan.num_gpus:g}",
        "memory": f"{plan.memory_gib:.1f} GiB: {_memory_terms(plan)}",
        "disk": f"{plan.disk_gib:.1f} GiB",
    }
    return "\n".join(f"{name:20}{value}" for name, value in lines.items())


def _size_without_files(config: Config) -> ModelSize:
    if config.student.fresh:
        return estimates.size_of_fresh(config.student.fresh)
    return ModelSize(num_parameters=0, num_bytes=0)


def _shortfalls(plan: Plan, resources: ClusterResources) -> Iterator[str]:
    if plan.num_cpus > resources.num_cpus:
        needed = f"{plan.num_cpus:g} needed ({DATA_CPUS:g} of them for Ray Data)"
        knobs = "engines.num_engines, engines.num_cpus, trainers.num_workers or trainers.num_cpus"
        yield f"CPUs: {needed}, {resources.num_cpus:g} there: lower {knobs}"
    if plan.num_gpus > resources.num_gpus:
        knobs = "engines.num_engines, engines.num_gpus, trainers.num_workers or trainers.num_gpus"
        yield f"GPUs: {plan.num_gpus:g} needed, {resources.num_gpus:g} there: lower {knobs}"
    if plan.memory_gib > resources.memory_gib:
        needed = f"{plan.memory_gib:.1f} GiB needed ({_memory_terms(plan)})"
        knobs = "engines.num_engines, engines.kv_cache_gib or trainers.num_workers"
        yield f"memory: {needed}, {resources.memory_gib:.1f} GiB there: lower {knobs}"
    if resources.object_store_gib is not None and plan.object_store_gib > resources.object_store_gib:
        needed = f"{plan.object_store_gib:.2f} GiB needed for a weight update"
        knobs = "raise cluster.object_store_mib, or set dpo.method = 'lora'"
        yield f"object store: {needed}, {resources.object_store_gib:.2f} GiB there: {knobs}"
    if plan.disk_gib > resources.disk_gib:
        knobs = "lower run.num_iterations or correct.num_corrections, or move run.directory"
        yield f"disk: {plan.disk_gib:.1f} GiB needed, {resources.disk_gib:.1f} GiB there: {knobs}"


def _gpu_memory_shortfalls(plan: Plan, resources: ClusterResources) -> Iterator[str]:
    there = resources.gpu_memory_gib
    if there is None:
        return
    if plan.gpu_engine_weights_gib >= plan.gpu_engine_share * there > 0:
        needed = f"{plan.gpu_engine_weights_gib:.1f} GiB needed for an engine's weights"
        knobs = "raise engines.gpu_memory_utilization or engines.tensor_parallel_size"
        yield f"GPU memory: {needed}, {plan.gpu_engine_share:g} of {there:.1f} GiB there: {knobs}"
    if plan.gpu_trainer_gib > there:
        knobs = "set sft.method and dpo.method to 'lora', or take a smaller student.path"
        yield f"GPU memory: {plan.gpu_trainer_gib:.1f} GiB needed per training worker, {there:.1f} GiB there: {knobs}"


def _memory_terms(plan: Plan) -> str:
    engines, trainers = plan.engines_memory_gib, plan.trainers_memory_gib
    return f"engines {engines:.1f}, training workers {trainers:.1f}, Ray and driver {plan.ray_memory_gib:.1f}"
