"""What is told from a model's config.json."""

import pytest

from medcritical_ray.planning.architecture import architecture_of, bytes_per_parameter, untold

QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "vocab_size": 100,
}
SMALL_LAYER = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 2 * 8
"""Of its attention (queries, keys and values, output), its feed-forward part, and two norms."""


def num_parameters(config: dict) -> int:
    architecture = architecture_of(config)
    assert architecture is not None
    return architecture.num_parameters


def test_the_parameters_of_qwen2_5_7b_are_those_that_its_makers_count():
    embeddings_and_head = 2 * 152_064 * 3584  # 1,089,994,752
    queries_and_output = 2 * 3584 * 3584  # 25,690,112
    keys_and_values = 2 * 3584 * 512  # 4 heads of 128 each: 3,670,016
    feed_forward = 3 * 3584 * 18_944  # 203,685,888
    biases_and_norms = 3584 + 512 + 512 + 2 * 3584  # 11,776
    layer = queries_and_output + keys_and_values + feed_forward + biases_and_norms
    assert layer == 233_057_792
    assert num_parameters(QWEN_7B) == embeddings_and_head + 28 * layer + 3584 == 7_615_616_512


def test_the_adapter_of_qwen2_5_7b_has_a_hundredth_of_its_parameters():
    architecture = architecture_of(QWEN_7B)
    assert architecture is not None
    # In and out of: queries, keys, values, output, gate, up, down.
    widths = 7168 + 4096 + 4096 + 7168 + 22_528 + 22_528 + 22_528
    assert architecture.num_adapter_parameters(32, None) == 28 * 32 * widths == 80_740_352
    assert architecture.num_adapter_parameters(32, ["q_proj", "v_proj"]) == 28 * 32 * (7168 + 4096)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"model_type": "llama"}, 2 * 800 + 2 * SMALL_LAYER + 8),
        ({"model_type": "llama", "tie_word_embeddings": True}, 800 + 2 * SMALL_LAYER + 8),
        ({"model_type": "llama", "attention_bias": True}, 2 * 800 + 2 * (SMALL_LAYER + 8 + 4 + 4 + 8) + 8),
        ({"model_type": "llama", "mlp_bias": True}, 2 * 800 + 2 * (SMALL_LAYER + 16 + 16 + 8) + 8),
        ({"model_type": "mistral"}, 2 * 800 + 2 * SMALL_LAYER + 8),
        ({"model_type": "qwen2"}, 2 * 800 + 2 * (SMALL_LAYER + 8 + 4 + 4) + 8),
        ({"model_type": "qwen3"}, 2 * 800 + 2 * (SMALL_LAYER + 4 + 4) + 8),
    ],
)
def test_biases_and_norms_are_those_of_the_model_type(parts: dict, expected: int):
    assert num_parameters({**SMALL, **parts}) == expected


def test_heads_may_be_wider_than_their_share_of_the_hidden_size():
    wide = {**SMALL, "model_type": "llama", "head_dim": 8}
    assert num_parameters(wide) == 2 * 800 + 2 * (SMALL_LAYER + 64 + 64 + 64) + 8


def test_the_part_about_text_counts_where_there_are_several():
    assert (
        num_parameters({"model_type": "other", "text_config": {**SMALL, "model_type": "llama"}})
        == 2 * 800 + 2 * SMALL_LAYER + 8
    )


def test_what_is_missing_is_named():
    config = {**QWEN_7B, "intermediate_size": None}
    del config["vocab_size"]
    assert architecture_of(config) is None
    assert untold(config) == "config.json does not say intermediate_size, vocab_size"


def test_a_model_type_whose_layers_are_not_known_is_named():
    config = {**QWEN_7B, "model_type": "qwen2_moe"}
    assert architecture_of(config) is None
    assert untold(config).startswith("model_type = 'qwen2_moe' is none of llama, mistral, qwen2, qwen3")


def test_weights_have_two_bytes_unless_config_says_four():
    assert bytes_per_parameter({"torch_dtype": "bfloat16"}) == 2
    assert bytes_per_parameter({"dtype": "float32"}) == 4
    assert bytes_per_parameter({}) == 2
