"""Config of the machinery: engines, training workers, the cluster. Counts, sizes, and the limit of every wait."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from medcritical_ray.config.part import Part

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/"
Labels = dict[
    Annotated[str, StringConstraints(pattern=rf"^({_PREFIX})?{_NAME}$")],
    Annotated[str, StringConstraints(pattern=rf"^{_NAME}$")],
]
"""Labels of Ray's nodes, in Kubernetes' syntax: exact values, none of Ray's operators, so that nodes can be counted."""

MAX_ACTORS = 10_000
SMALLEST_GPU_SHARE = 0.01


def _is_gpu_share(num_gpus: float) -> float:
    if 0 < num_gpus < SMALLEST_GPU_SHARE:
        raise ValueError(f"must be 0 or at least {SMALLEST_GPU_SHARE}")
    return num_gpus


Gpus = Annotated[float, Field(ge=0, le=1000), AfterValidator(_is_gpu_share)]


class EnginesConfig(Part):
    num_engines: int = Field(
        default=1, ge=1, le=MAX_ACTORS, description="Engines that generate, and correct unless others do."
    )
    min_engines: int | None = Field(
        default=None,
        ge=0,
        description="Engines that stay between phases; more, up to num_engines, come while work waits and go before "
        "training. None means that all stay.",
    )
    separate_corrector: int = Field(
        default=0,
        ge=0,
        le=MAX_ACTORS,
        description="Further engines for corrections. While they serve the same policy, and no engine comes or goes, "
        "they and the others help each other. 0 means that the same engines play both roles.",
    )
    num_cpus: float = Field(
        default=1.0, gt=0, description="CPUs that Ray reserves per engine, and its threads; on a shared CPU 1 is best."
    )
    num_gpus: Gpus = Field(default=1.0, description="GPUs per engine; 0 runs on the CPU.")
    labels: Labels = Field(default={}, description="Labels of the nodes that may hold engines; none means any node.")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs over which an engine splits its weights.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="Type of the engine's weights; 'auto' takes the model's own."
    )
    max_model_len: int = Field(default=4096, ge=16, description="Tokens of prompt and text together, at most.")
    max_num_seqs: int = Field(default=256, ge=1, description="Texts that an engine writes at the same time, at most.")
    kv_cache_gib: float = Field(default=4.0, gt=0, description="Memory for keys and values in GiB; on the CPU only.")
    gpu_memory_utilization: float = Field(
        default=0.85, gt=0, le=1, description="Share of a GPU's memory for weights, keys and values; on GPUs only."
    )
    max_in_flight: int = Field(default=2, ge=1, description="Blocks of requests that wait at one engine, at most.")
    max_restarts: int = Field(
        default=3,
        ge=0,
        description="Times that each engine is started again after it died, as long as its pool lives; the next death "
        "retires it.",
    )
    required_engines: int = Field(
        default=1, ge=1, description="Engines of a pool that must be left; when more are retired, the run stops."
    )
    start_timeout_s: float = Field(default=900.0, gt=0, description="Seconds until a started engine serves.")
    request_timeout_s: float = Field(
        default=3600.0, gt=0, description="Seconds for one block of requests, however well it goes on."
    )
    progress_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="Seconds for one step of an engine that writes, the first of all included; after half of them it "
        "gets no more work, after all of them it counts as dead.",
    )
    update_timeout_s: float = Field(default=600.0, gt=0, description="Seconds for an engine to serve a new version.")
    weight_transfer: Literal["object_store", "nccl"] = Field(
        default="object_store",
        description="How full weights reach running engines: 'object_store' has each take them, on other machines from "
        "Ray's store; 'nccl' has one take them and send them to the others, from GPU to GPU, which has not run on GPUs "
        "yet.",
    )

    def least_of(self, num_engines: int) -> int:
        """Those of a pool of so many that stay between phases."""
        return num_engines if self.min_engines is None else min(num_engines, self.min_engines)


class TrainersConfig(Part):
    num_workers: int = Field(
        default=1,
        ge=0,
        le=MAX_ACTORS,
        description="Training workers; 0 trains in the job's own process, on the CPU: where a worker's start takes as "
        "long as a training.",
    )
    num_cpus: float = Field(default=1.0, gt=0, description="CPUs that Ray reserves per worker.")
    num_gpus: Gpus = Field(default=1.0, description="GPUs per worker; 0 trains on the CPU.")
    labels: Labels = Field(default={}, description="Labels of the nodes that may hold workers; none means any node.")
    max_tokens_per_forward: int = Field(
        default=16_384, ge=1, description="Tokens of one forward pass, padding included; larger batches take several."
    )
    gradient_checkpointing: bool = Field(
        default=True,
        description="Keep only the input of each layer and compute the rest again in the backward pass; on GPUs only.",
    )
    max_failures: int = Field(default=2, ge=0, description="Times that a training starts again after a worker died.")
    start_timeout_s: float = Field(
        default=900.0,
        gt=0,
        description="Seconds until a training's workers start; their machines may have to come first.",
    )
    answer_timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds that a worker may be silent; then it is taken for dead."
    )
    progress_timeout_s: float = Field(
        default=7200.0,
        gt=0,
        description="Seconds without a step, since the start or the last one; then a training ends, to be resumed.",
    )
    timeout_s: float = Field(default=86_400.0, gt=0, description="Seconds for one training, SFT or DPO.")


class ClusterConfig(Part):
    address: str | None = Field(
        default=None, description="Ray cluster to join; None joins the one that the job runs in, or starts a local one."
    )
    num_cpus: int | None = Field(default=None, ge=1, description="CPUs of a local cluster; None means all there are.")
    object_store_mib: int = Field(default=200, ge=80, description="Object store of a local cluster in MiB.")
    autoscales: bool = Field(
        default=False, description="The cluster brings machines as they are asked for: what it lacks now is no error."
    )
    connect_timeout_s: float = Field(default=120.0, gt=0, description="Seconds until the cluster answers.")
