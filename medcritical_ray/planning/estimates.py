"""Estimates, from above, of what a run takes of its machines and disks, in GiB of 2**30 bytes. Every term stands here
with its reason; `gpu_memory` has those of a GPU.

Left out: activations of training workers on the CPU, where models are small, the questions themselves, which lie on
the disk as they did before, and what others use on the same machines.
"""

from dataclasses import dataclass

from medcritical_ray.config import Config, DpoConfig, FreshStudentConfig, SftConfig
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.architecture import Architecture

GIB = 2**30
ENGINE_PROCESS_GIB = 1.2
"""Memory of an engine's process without weights and cache: Python, torch and vLLM on the CPU."""
GPU_ENGINE_PROCESS_GIB = 4.0
"""The same on the host of a GPU, where CUDA's libraries and pinned buffers come on top."""
TRAINER_PROCESS_GIB = 1.0
"""Memory of a training worker without the model: Python, torch, transformers and a shard of the pairs."""
DRIVER_GIB = 1.0
"""Memory of the driver and of Ray's own processes on the machine where the job runs."""
BYTES_PER_TRAINED_PARAMETER = 16
"""Parameter, gradient and AdamW's two moments, in float32 of 4 bytes each; every worker holds all of them."""
ADAPTER_SHARE = 0.1
"""Parameters of a LoRA adapter over those of its model where its architecture is unknown: rank 64 on a 7B model makes
2 %."""
BYTES_PER_TOKEN_ON_DISK = 8
"""Of a trajectory: about 4 bytes of text per token, written as output and again as the whole trace."""
TEXTS_PER_PAIR = 4
"""Each as long as a trajectory at most: the question, the attempt in the prompt, the chosen trace in its parts, the
rejected one."""
BYTES_PER_PARAMETER = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows per iteration, at most: corrections if every attempt is wrong, pairs if the limits are reached. Candidates
    are all pairs that could be made."""

    num_questions: int
    num_attempts: int
    num_corrections: int
    num_candidates: int
    num_pairs: int


def estimate_rows(config: Config) -> Rows:
    num_questions, pairs = config.generate.num_questions or config.questions.num_train, config.pairs
    num_attempts = num_questions * config.generate.num_attempts
    num_sources = sum(share > 0 for share in pairs.shares.values())
    num_candidates = num_questions * num_sources * pairs.max_pairs_per_question
    return Rows(
        num_questions=num_questions,
        num_attempts=num_attempts,
        num_corrections=num_attempts * config.correct.num_repairs,
        num_candidates=num_candidates,
        num_pairs=min(pairs.max_pairs, num_candidates),
    )


def size_of_fresh(student: FreshStudentConfig) -> ModelSize:
    """A new Qwen2 with tied embeddings in float32, with as many heads for keys and values as for queries."""
    architecture = Architecture(
        hidden_size=student.hidden_size,
        num_layers=student.num_layers,
        num_heads=student.num_heads,
        num_kv_heads=student.num_heads,
        head_dim=student.hidden_size // student.num_heads,
        intermediate_size=student.intermediate_size,
        vocab_size=student.vocab_size,
        tied_embeddings=True,
        num_vector_parameters=5 * student.hidden_size,  # biases of queries, keys and values, and two norms
    )
    num_parameters = architecture.num_parameters
    return ModelSize(num_parameters=num_parameters, num_bytes=4 * num_parameters, architecture=architecture)


def engine_weights_gib(config: Config, size: ModelSize) -> float:
    """Weights of one engine, over all its GPUs."""
    if config.engines.dtype == "auto":
        return size.num_bytes / GIB
    return size.num_parameters * BYTES_PER_PARAMETER[config.engines.dtype] / GIB


def engine_memory_gib(config: Config, size: ModelSize) -> float:
    """Memory of the machine for one engine. On a GPU the weights pass through it when they are loaded and updated."""
    weights = engine_weights_gib(config, size)
    if config.engines.num_gpus > 0:
        return GPU_ENGINE_PROCESS_GIB + weights
    return ENGINE_PROCESS_GIB + weights + config.engines.kv_cache_gib


def trained_parameters(part: SftConfig | DpoConfig, size: ModelSize) -> float:
    """All of the model's, or those of an adapter."""
    if part.method == "full":
        return size.num_parameters
    if size.architecture is None:
        return ADAPTER_SHARE * size.num_parameters
    return size.architecture.num_adapter_parameters(part.lora.rank, part.lora.target_modules)


def frozen_bytes_per_parameter(config: Config) -> int:
    """Of weights below an adapter, and of a reference: bfloat16 on GPUs."""
    return BYTES_PER_PARAMETER["bfloat16" if config.trainers.num_gpus > 0 else "float32"]


def training_state_gib(config: Config, size: ModelSize) -> float:
    """What one worker on the CPU holds in the larger of the trainings: weights, gradients and moments.

    DPO's reference is gone before gradients and moments come, and is smaller than they are with all weights trained.
    """
    frozen = size.num_parameters * frozen_bytes_per_parameter(config)
    states = [
        trained_parameters(part, size) * BYTES_PER_TRAINED_PARAMETER + (frozen if part.method == "lora" else 0)
        for part in (config.sft, config.dpo)
    ]
    return max(*states, 2 * frozen if config.dpo.reference == "initial" else 0) / GIB


def trainer_memory_gib(config: Config, size: ModelSize) -> float:
    """Memory of the machine for one training worker. With a GPU the weights pass through it when they are loaded."""
    if config.trainers.num_gpus > 0:
        loaded = "float32" if "full" in (config.sft.method, config.dpo.method) else "bfloat16"
        return TRAINER_PROCESS_GIB + size.num_parameters * BYTES_PER_PARAMETER[loaded] / GIB
    return TRAINER_PROCESS_GIB + training_state_gib(config, size)


def policy_gib(part: SftConfig | DpoConfig, size: ModelSize) -> float:
    """One policy on disk, as this training leaves it: all weights in float32, or an adapter."""
    return trained_parameters(part, size) * BYTES_PER_PARAMETER["float32"] / GIB


def broadcast_gib(config: Config, size: ModelSize) -> float:
    """What a weight update puts in the object store: all weights in float32; adapters go through the disk."""
    if "full" not in (config.sft.method, config.dpo.method):
        return 0.0
    return size.num_parameters * BYTES_PER_PARAMETER["float32"] / GIB


def disk_gib(config: Config, size: ModelSize) -> float:
    """Two policies of stage 1 (a draft, and the one that plays on), those of the iterations that are not pruned, and
    all rows: of stage 1, of every iteration, and of the evaluations of base student, stage 1 and every iteration.

    A published policy shares its files with the training that it comes from.
    """
    num_iterations, keep = config.run.num_iterations, config.run.keep_policies
    # Beside the newest: the current one, its parent, the best, and the one that is there before others are pruned.
    num_policies = num_iterations if keep is None else min(num_iterations, keep + 4)
    policies = 2 * policy_gib(config.sft, size) + num_policies * policy_gib(config.dpo, size)
    num_tokens = _tokens_of_stage_one(config) + num_iterations * _tokens_of_iteration(config)
    num_tokens += (2 + num_iterations) * _tokens_of_evaluation(config)
    return policies + num_tokens * BYTES_PER_TOKEN_ON_DISK / GIB


def _lengths_tokens(config: Config) -> tuple[int, int]:
    """Of an attempt, and of a correction as a trajectory, which holds the attempt, too."""
    attempt = config.generate.sampling.max_tokens
    return attempt, attempt + config.correct.sampling.max_tokens


def _tokens_of_stage_one(config: Config) -> float:
    """Own attempts, each of which may be in two demonstrations."""
    attempt, correction = _lengths_tokens(config)
    num_questions = config.teacher.num_corrected or config.teacher.num_questions
    return num_questions * config.sft.own_attempts * (attempt + 2 * TEXTS_PER_PAIR * correction)


def _tokens_of_iteration(config: Config) -> float:
    attempt, correction = _lengths_tokens(config)
    rows = estimate_rows(config)
    pairs = (rows.num_candidates + rows.num_pairs) * TEXTS_PER_PAIR * correction
    return rows.num_attempts * attempt + rows.num_corrections * correction + pairs


def _tokens_of_evaluation(config: Config) -> float:
    """Answers, samples, and of a share of the answers a check and perhaps a repair."""
    attempt, correction = _lengths_tokens(config)
    per_question = (1 + config.evaluate.num_passes) * attempt + 2 * config.evaluate.corrected_share * correction
    return (config.questions.num_dev + config.questions.num_test) * per_question
