"""What to set where memory has run out: told from the words in which torch, vLLM, Ray and Python say so."""

import re

from medcritical_ray.phases import TRAININGS

ENGINES = ("generate", "correct", "broadcast", "evaluate", "evaluate_base")
"""The phases in which engines write."""

_OF_ENGINES = (
    (
        r"KV cache is needed, which is larger",
        "lower engines.max_model_len, or raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib)",
    ),
    (
        r"No available memory for the cache",
        "raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib), or lower engines.max_num_seqs",
    ),
    (r"Free memory on device", "lower engines.gpu_memory_utilization"),
    (r"Available memory on node .* kv cache", "lower engines.kv_cache_gib"),
    (r"(CUDA|HIP) out of memory|CUDA error: out of memory", "lower engines.gpu_memory_utilization"),
)
_SIGNS = re.compile(
    r"out of memory|OutOfMemory|OUT_OF_MEMORY|low on memory|can't allocate memory|Cannot allocate memory|MemoryError"
    r"|bad_alloc|malloc of size"
)
"""What torch, Ray's memory monitor, the kernel, Python, C++ and Arrow write."""


def memory_remedy(cause: str, phase: str) -> str:
    """The setting to change, in words, if the cause of a failure in that phase is a lack of memory; else nothing."""
    for sign, remedy in _OF_ENGINES if phase in ENGINES else ():
        if re.search(sign, cause):
            return remedy
    if not _SIGNS.search(cause):
        return ""
    if phase in TRAININGS:
        return "lower trainers.max_tokens_per_forward"
    if phase in ENGINES:
        return "lower engines.kv_cache_gib or engines.num_engines"
    return "free memory on the machine of the driver, or start a run with a lower questions.block_size"


def words_of(error: BaseException | None) -> str:
    """All that an error and those that caused it say, their types among it."""
    words = []
    while error is not None:
        words.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return "\n".join(words)
