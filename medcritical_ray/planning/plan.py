"""What a run will need, computed before its first actor starts.

Engines and training workers live at the same time on the same cluster: their CPUs and memory add up, and so do GPUs, as
far as they cannot be shared.
"""

from dataclasses import dataclass

from medcritical_ray.config import Config
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning import estimates
from medcritical_ray.planning.estimates import Rows
from medcritical_ray.planning.gpu_memory import EngineMemory, TrainerMemory, engine_memory, trainer_memory
from medcritical_ray.planning.gpu_sharing import GpuUse, gpu_uses, gpus_for, num_gpus
from medcritical_ray.planning.placement import Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will need. `*_memory_gib` is memory of the machines.

    `engine` and `trainer` are what each of them takes of a GPU, None for those on the CPU; `gpu_uses` are the ways in
    which they may come to lie on one GPU.
    """

    size: ModelSize
    num_iterations: int
    rows: Rows
    num_engines: int
    num_workers: int
    num_cpus: float
    num_gpus: int
    engines_memory_gib: float
    trainers_memory_gib: float
    ray_memory_gib: float
    object_store_gib: float
    engine: EngineMemory | None
    trainer: TrainerMemory | None
    gpu_uses: list[GpuUse]
    engines_claim: Claim
    trainers_claim: Claim
    disk_gib: float

    @property
    def memory_gib(self) -> float:
        return self.engines_memory_gib + self.trainers_memory_gib + self.ray_memory_gib

    def least_gpu_gib(self, num_sequences: float = 1) -> float:
        """The memory of the smallest GPU that carries what may come to lie on it, and that many sequences of full
        length in each engine's cache; 0 without GPUs."""
        return max((use.least_gpu_gib(self.engine, self.trainer, num_sequences) for use in self.gpu_uses), default=0.0)


def make_plan(config: Config, model_size: ModelSize | None) -> Plan:
    """The plan of a run. Only a fresh student's size may be left to the config."""
    size = model_size or _size_of_fresh(config)
    engines, trainers = config.engines, config.trainers
    num_engines = engines.num_engines + engines.separate_corrector
    return Plan(
        size=size,
        num_iterations=config.run.num_iterations,
        rows=estimates.estimate_rows(config),
        num_engines=num_engines,
        num_workers=trainers.num_workers,
        num_cpus=num_engines * engines.num_cpus + trainers.num_workers * trainers.num_cpus,
        num_gpus=num_gpus(config),
        engines_memory_gib=num_engines * estimates.engine_memory_gib(config, size),
        trainers_memory_gib=(trainers.num_workers or 1) * estimates.trainer_memory_gib(config, size),
        ray_memory_gib=estimates.DRIVER_GIB + config.cluster.object_store_mib / 1024,
        object_store_gib=estimates.broadcast_gib(config, size),
        engine=engine_memory(config, size) if engines.num_gpus > 0 else None,
        trainer=trainer_memory(config, size) if trainers.num_gpus > 0 else None,
        gpu_uses=gpu_uses(config),
        engines_claim=engines_claim(config, num_engines, estimates.engine_memory_gib(config, size)),
        trainers_claim=_trainers_claim(config, size),
        disk_gib=estimates.disk_gib(config, size),
    )


def engines_claim(config: Config, num_engines: int, gib_each: float, knob: str = "engines.num_engines") -> Claim:
    engines = config.engines
    return Claim(
        who="engines",
        part="engines",
        labels=engines.labels,
        num_cpus=num_engines * engines.num_cpus,
        num_gpus=gpus_for(num_engines * [engines.num_gpus]),
        memory_gib=num_engines * gib_each,
        knobs=knob,
    )


def _trainers_claim(config: Config, size: ModelSize) -> Claim:
    trainers = config.trainers
    return Claim(
        who="training workers",
        part="trainers",
        labels=trainers.labels,
        num_cpus=trainers.num_workers * trainers.num_cpus,
        num_gpus=gpus_for(trainers.num_workers * [trainers.num_gpus]),
        memory_gib=trainers.num_workers * estimates.trainer_memory_gib(config, size),
        knobs="trainers.num_workers",
    )


def memory_terms(plan: Plan) -> str:
    engines, trainers = plan.engines_memory_gib, plan.trainers_memory_gib
    return f"engines {engines:.1f}, training workers {trainers:.1f}, Ray and driver {plan.ray_memory_gib:.1f}"


def _size_of_fresh(config: Config) -> ModelSize:
    assert config.student.fresh, "a student that is given has a size"
    return estimates.size_of_fresh(config.student.fresh)
