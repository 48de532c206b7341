"""How vLLM is started, for rollouts and for serving alike."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines.served import served_rank
from medcritical_ray.errors import UserError
from medcritical_ray.out_of_memory import memory_remedy

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
"""Of this process and those that it starts, unless somebody wants to hear more."""


def set_environment(**more: str) -> None:
    """Before vLLM is imported. It and what it stands on warn of much that is meant to be so: only errors are shown."""
    os.environ |= {**_ENVIRONMENT, **more}
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore", FutureWarning)


def vllm_settings(
    policy_dir: Path, config: EnginesConfig, max_lora_rank: int | None, *, max_loras: int
) -> dict[str, Any]:
    """The arguments that decide what an engine writes and how much memory it takes."""
    from vllm.platforms import current_platform

    settings: dict[str, Any] = {
        "model": str(policy_dir),
        "load_format": "safetensors",  # never a pickle, and no code of the model's own
        "trust_remote_code": False,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "tensor_parallel_size": config.tensor_parallel_size,
        "seed": 0,
        "disable_log_stats": True,
    }
    settings |= _cpu_settings(config) if current_platform.is_cpu() else _gpu_settings(config)
    if max_lora_rank is not None:
        settings |= {"enable_lora": True, "max_lora_rank": served_rank(max_lora_rank), "max_loras": max_loras}
    return settings


@contextmanager
def told_in_one_line(policy_dir: Path) -> Iterator[None]:
    """Turns what vLLM refuses into a UserError, which names the setting to change where memory is too small."""
    try:
        yield
    except ValueError as error:
        reasons = [each["msg"] for each in error.errors()] if isinstance(error, ValidationError) else [str(error)]
        if remedy := memory_remedy(str(error), "generate"):
            reasons.append(remedy)
        raise UserError(f"vLLM does not take {policy_dir} with these engines: {'; '.join(reasons)}") from error


def _cpu_settings(config: EnginesConfig) -> dict[str, Any]:
    """A prompt is read in one piece: a seed of vLLM's own, as clients of `serve` may send one, crashes its sampler for
    the CPU if the prompt is split over steps."""
    return {
        "enforce_eager": True,
        "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
        "enable_chunked_prefill": False,
    }


def _gpu_settings(config: EnginesConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory_utilization}
    if config.weight_transfer == "nccl":
        settings["weight_transfer_config"] = {"backend": "nccl"}
    return settings
