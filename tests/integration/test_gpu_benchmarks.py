"""The benchmarks of GPUs: what of them can be had without one, in a model small enough for this machine."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmarks import gpu_training, gpu_weights
from jobs.benchmarks.figures import row_of
from jobs.benchmarks.gpu_training import Method, Part, Training, product_tflops
from medcritical_ray.planning.gpu_memory import CUDA_GIB
from medcritical_ray.training.packing import pack

ARCHITECTURE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize("part", ["sft", "dpo"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_needs_the_operations_that_are_counted_for_it(part: Part, method: Method):
    """torch counts those of every matrix product: those of scores that are masked, too, and of predictions in prompts,
    which are a sixth here."""
    training = Training(part, method, ARCHITECTURE, num_examples=1)
    run = training.on(CPU)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run.seconds(training.examples)
    assert 1.1 < counter.get_total_flops() / training.flops < 1.2


def test_a_pair_counts_what_its_texts_share_once():
    training = Training("dpo", "lora", ARCHITECTURE, num_examples=3)
    widths = [pack([example], pad_token_id=0).input_ids.shape[1] for example in training.examples]
    assert training.num_tokens == sum(widths) < sum(example.num_tokens for example in training.examples)


@pytest.mark.parametrize("part", ["sft", "dpo"])
def test_the_longest_examples_are_as_long_as_a_training_takes_them(part: Part):
    training = Training(part, "lora", ARCHITECTURE, num_examples=2)
    assert {example.length_tokens for example in training.longest} == {1536}


def test_only_adapters_are_planned_for_and_trained_where_they_are_asked_for():
    lora, full = (Training("sft", method, ARCHITECTURE, num_examples=2) for method in ("lora", "full"))
    assert lora.planned_gib < full.planned_gib
    assert lora.flops < full.flops < 1.5 * lora.flops


def test_a_matrix_product_has_a_rate():
    assert 0 < product_tflops(CPU, size=128, num_products=2) < 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_every_figure_says_that_it_was_not_measured(tmp_path: Path):
    for number, figures in ((10, gpu_training.measure(1, tmp_path)), (11, gpu_weights.measure(1, tmp_path))):
        row = row_of(number, figures)
        assert {each["why"] for each in (row, *row["also"])} == {"not measured: no GPU"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("part", ["sft", "dpo"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_on_a_gpu_training_stays_within_the_plan(part: Part, method: Method):
    training = Training(part, method, ARCHITECTURE)
    run = training.on(torch.device("cuda"))
    torch.cuda.reset_peak_memory_stats()
    run.seconds(training.longest)
    assert torch.cuda.max_memory_reserved() / 2**30 < training.planned_gib - CUDA_GIB
