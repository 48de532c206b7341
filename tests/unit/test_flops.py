"""Operations of a training, by hand."""

import pytest

from medcritical_ray.planning.architecture import Architecture
from medcritical_ray.planning.flops import forward_flops, training_flops

SMALL = Architecture(
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    intermediate_size=16,
    vocab_size=100,
    tied_embeddings=False,
    num_vector_parameters=32,
)
# A layer's weights: queries and output 8 * 8 each, keys and values 8 * 4 each, the feed-forward part 3 * 8 * 16.
LINEAR = 2 * (2 * 64 + 2 * 32 + 3 * 128)
HEAD = 8 * 100
# Scores and what is taken by them: a multiplication and an addition for each of 8 numbers, in two layers.
ATTENTION = 2 * 2 * 8 * 5 * 10 * 2
SIZES = {"num_tokens": 10, "num_predicted": 4, "mean_context": 5}


def test_a_forward_pass_takes_two_for_each_weight_and_token_and_the_head_where_it_is_needed():
    assert forward_flops(SMALL, **SIZES) == 2 * LINEAR * 10 + 2 * HEAD * 4 + ATTENTION


def test_a_backward_pass_takes_twice_as_much_where_all_weights_are_trained():
    assert training_flops(SMALL, **SIZES, rank=None) == 3 * forward_flops(SMALL, **SIZES)


def test_with_an_adapter_gradients_of_frozen_weights_are_not_needed():
    # Of rank 1: in + out of each linear layer, 16 + 12 + 12 + 16 + 3 * 24, in two layers.
    adapter = 2 * 128
    frozen, once = 2 * (2 * LINEAR * 10 + 2 * HEAD * 4), 2 * adapter * 10
    assert training_flops(SMALL, **SIZES, rank=1) == pytest.approx(frozen + 3 * once + 3 * ATTENTION)
