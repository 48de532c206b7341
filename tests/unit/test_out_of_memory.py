"""Whoever runs out of memory is told which setting to change."""

from pathlib import Path
from typing import Any

import pytest
from fakes import RESUME_COMMAND, SmallRun, small_config

from medcritical_ray.engines.vllm_settings import told_in_one_line
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.out_of_memory import memory_remedy, words_of

CUDA = (
    "worker 0: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of "
    "79.11 GiB of which 1.05 GiB is free."
)
KV_CACHE = (
    "To serve at least one request with the model's max seq len (4096), (0.44 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (0.12 GiB). Based on the available memory, the estimated maximum model length "
    "is 1120. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
)
NO_BLOCKS = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
LOW = (
    "Task was killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7) was 60.1GB / 62.0GB, "
    "which exceeds the memory usage threshold of 0.95."
)
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


@pytest.mark.parametrize(
    ("phase", "cause", "remedy"),
    [
        ("train", CUDA, "lower trainers.max_tokens_per_forward"),
        ("draft", LOW, "lower trainers.max_tokens_per_forward"),
        ("train", ALLOCATOR, "lower trainers.max_tokens_per_forward"),
        ("train", "MemoryError: ", "lower trainers.max_tokens_per_forward"),
        ("generate", CUDA, "lower engines.gpu_memory_utilization"),
        (
            "evaluate_base",
            KV_CACHE,
            "lower engines.max_model_len, or raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib)",
        ),
        (
            "evaluate_base",
            NO_BLOCKS,
            "raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib), or lower engines.max_num_seqs",
        ),
        (
            "evaluate_base",
            "Free memory on device cuda:0 (60.2/79.1 GiB) on startup is less than desired GPU memory utilization (0.85",
            "lower engines.gpu_memory_utilization",
        ),
        (
            "evaluate_base",
            "Available memory on node 0 (1.2/24.0 GiB) on kv cache allocation is less than requested memory for kv (4",
            "lower engines.kv_cache_gib",
        ),
        ("correct", LOW, "lower engines.kv_cache_gib or engines.num_engines"),
        ("generate", "OutOfMemoryError: ...", "lower engines.kv_cache_gib or engines.num_engines"),
        (
            "pair",
            "ArrowMemoryError: malloc of size 1073741824 failed",
            "free memory on the machine of the driver, or start a run with a lower questions.block_size",
        ),
        ("train", "dpo: at step 3 the loss is nan", ""),
        ("generate", "generator-0 is dead: its process has died", ""),
        ("pair", "part-00000.parquet is damaged", ""),
    ],
)
def test_the_setting_is_told_by_the_words_of_the_cause_and_the_phase(phase: str, cause: str, remedy: str):
    assert memory_remedy(cause, phase) == remedy


def test_the_causes_of_an_error_are_looked_at_with_their_types():
    error = RunFailed("worker 0 failed")
    error.__cause__ = MemoryError()
    assert words_of(error) == "RunFailed: worker 0 failed\nMemoryError: "


@pytest.mark.parametrize(
    ("phase", "error", "told"),
    [
        ("train", MemoryError(), "MemoryError: lower trainers.max_tokens_per_forward"),
        ("train", RunFailed(CUDA), f"{CUDA}: lower trainers.max_tokens_per_forward"),
        ("generate", RuntimeError("CUDA error: out of memory"), "out of memory: lower engines.gpu_memory_utilization"),
    ],
)
def test_a_phase_that_runs_out_of_memory_names_the_setting(tmp_path: Path, phase: str, error: Exception, told: str):
    def work() -> dict[str, Any]:
        raise error

    game = SmallRun(tmp_path, small_config()).open()
    with game.run, pytest.raises(RunFailed) as caught:
        game.once(1, phase, work)
    assert str(caught.value).endswith(f"{told}; resume with: {RESUME_COMMAND}")
    assert "\n" not in str(caught.value)


def test_an_engine_that_finds_no_room_says_what_to_change_once(tmp_path: Path):
    with pytest.raises(UserError) as caught, told_in_one_line(Path("student")):
        raise ValueError(KV_CACHE)
    refusal = str(caught.value)
    assert refusal.endswith(
        "; lower engines.max_model_len, or raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib)"
    )

    def work() -> dict[str, Any]:
        raise UserError(refusal)

    game = SmallRun(tmp_path, small_config()).open()
    with game.run, pytest.raises(UserError) as told:
        game.once(0, "evaluate_base", work)
    assert str(told.value).count("lower engines.max_model_len") == 1


def test_what_vllm_refuses_for_another_reason_is_told_without_one():
    with (
        pytest.raises(UserError, match=r"student with these engines: no such dtype$"),
        told_in_one_line(Path("student")),
    ):
        raise ValueError("no such dtype")
