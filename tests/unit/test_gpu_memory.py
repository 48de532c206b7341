"""Memory per GPU, with the arithmetic of one case written out, and what may come to lie on one GPU."""

import math

import pytest

from medcritical_ray.config import Config
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.architecture import architecture_of
from medcritical_ray.planning.gpu_memory import activation_bytes_per_token, engine_memory, trainer_memory
from medcritical_ray.planning.gpu_sharing import GpuUse, gpu_uses, num_gpus

GIB = 2**30
NUM_PARAMETERS = 7_615_616_512
NUM_ADAPTER_PARAMETERS = 80_740_352
QWEN_7B = architecture_of(
    {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    }
)
SIZE = ModelSize(num_parameters=NUM_PARAMETERS, num_bytes=2 * NUM_PARAMETERS, architecture=QWEN_7B)
LAYER_BYTES = (
    2 * 4 * 3584  # the inputs of two norms, in float32
    + 2 * (6 * 3584 + 18_944)  # the inputs of seven adapters, in bfloat16
    + 2 * 7 * 32  # and what they make of them, of rank 32
    + 2 * 4 * 3584  # queries, keys and values for each head, the output of attention
    + 4 * 28  # the softmax's sums, one per head
    + 2 * 1536  # the mask over a row
    + 2 * 3 * 18_944  # gate, activated gate, and what it gates
    + 2 * 4  # the norms' scales
)
"""What a layer keeps per token while an adapter is trained on rows of 1,536 tokens."""


def config_of(**parts: dict) -> Config:
    """An engine and a worker of a 7B model that share a GPU."""
    return Config.model_validate(
        {
            "sft": {"max_length_tokens": 1536, **parts.get("sft", {})},
            "dpo": {"max_length_tokens": 1536, **parts.get("dpo", {})},
            "generate": {"sampling": {"max_tokens": 512}},
            "correct": {"sampling": {"max_tokens": 512}},
            "engines": {
                "num_gpus": 0.5,
                "gpu_memory_utilization": 0.45,
                "max_model_len": 2048,
                "max_num_seqs": 128,
                **parts.get("engines", {}),
            },
            "trainers": {"num_gpus": 0.5, "max_tokens_per_forward": 8192, **parts.get("trainers", {})},
        }
    )


def test_an_engine_of_a_7b_model_by_hand():
    engine = engine_memory(config_of(), SIZE)
    assert engine.weights_gib * GIB == pytest.approx(2 * NUM_PARAMETERS)
    assert engine.adapter_gib * GIB == pytest.approx(2 * NUM_ADAPTER_PARAMETERS)
    # 16,384 tokens with four hidden and three inner states of 2 bytes; logits of 128 sequences, four times 4 bytes.
    work = 16_384 * (4 * 3584 + 3 * 18_944) * 2 + 128 * 152_064 * 16
    assert engine.working_gib * GIB == pytest.approx(2 * GIB + work)
    # Keys and values of 28 layers, 4 heads of 128, 2 bytes each.
    assert engine.kv_bytes_per_token == 2 * 28 * 4 * 128 * 2 == 57_344
    assert engine.needed_gib(0) == pytest.approx(18.80, abs=0.01)
    # 0.45 of 80 GiB leave 17.2 GiB: 157 sequences of 2,048 tokens, or 112 MiB each.
    assert engine.num_sequences_on(80) == pytest.approx((36 - 18.797) * 1024 / 112, abs=0.1)


def test_an_engine_has_room_for_adapters_of_the_next_rank_that_is_served_on_all_linear_layers():
    engine = engine_memory(
        config_of(sft={"method": "full"}, dpo={"lora": {"rank": 20, "target_modules": ["q_proj"]}}), SIZE
    )
    assert engine.adapter_gib * GIB == pytest.approx(2 * NUM_ADAPTER_PARAMETERS)  # of rank 32


def test_an_engine_without_adapters_has_no_room_for_them():
    assert engine_memory(config_of(sft={"method": "full"}, dpo={"method": "full"}), SIZE).adapter_gib == 0


def test_an_engine_splits_weights_and_heads_over_its_gpus():
    engine = engine_memory(config_of(engines={"num_gpus": 2, "tensor_parallel_size": 2}), SIZE)
    assert engine.weights_gib * GIB == pytest.approx(NUM_PARAMETERS)
    assert engine.kv_bytes_per_token == 57_344 / 2


def test_a_training_worker_with_an_adapter_by_hand():
    trainer = trainer_memory(config_of(), SIZE)
    assert trainer.weights_gib * GIB == pytest.approx(2 * NUM_PARAMETERS + 4 * NUM_ADAPTER_PARAMETERS)
    assert trainer.gradients_gib * GIB == pytest.approx(4 * NUM_ADAPTER_PARAMETERS)
    assert trainer.moments_gib * GIB == pytest.approx(8 * NUM_ADAPTER_PARAMETERS)
    assert LAYER_BYTES == 255_544
    # The inputs of 28 layers, one layer in full and its gradients; and the adapter in bfloat16.
    activations = 8192 * (28 * 2 * 3584 + 2 * LAYER_BYTES) + 2 * NUM_ADAPTER_PARAMETERS
    assert trainer.activations_gib * GIB == pytest.approx(activations)
    assert trainer.logits_gib * GIB == pytest.approx(8192 * 152_064 * 12)
    # 14.49 + 0.30 + 0.60 + 5.58 + 13.92, 2 of the process and a tenth of the last two.
    assert trainer.needed_gib == pytest.approx(38.84, abs=0.01)


def test_without_checkpointing_all_layers_keep_everything():
    assert QWEN_7B is not None
    kept = activation_bytes_per_token(QWEN_7B, rank=32, row_tokens=1536, gradient_checkpointing=False)
    assert kept == 29 * LAYER_BYTES
    trainer = trainer_memory(config_of(trainers={"gradient_checkpointing": False}), SIZE)
    # 14.49 + 0.30 + 0.60 + 56.69 + 13.92, and 2 + 7.06.
    assert trainer.needed_gib == pytest.approx(95.06, abs=0.01)


def test_a_pair_that_is_longer_than_a_forward_pass_counts():
    trainer = trainer_memory(config_of(trainers={"max_tokens_per_forward": 1000}), SIZE)
    assert trainer.logits_gib * GIB == pytest.approx(2 * 1536 * 152_064 * 12)


def test_all_weights_take_sixteen_bytes_each_and_the_optimizers_copy():
    none = ModelSize(num_parameters=GIB, num_bytes=2 * GIB)
    trainer = trainer_memory(config_of(dpo={"method": "full"}), none)
    assert (trainer.weights_gib, trainer.gradients_gib, trainer.moments_gib) == (4, 4, 8)
    # Two bytes of activations are the weights in bfloat16; the step of the optimizer takes more.
    assert trainer.needed_gib == pytest.approx(16 + 4 + 2 + 0.1 * 2)


def test_several_workers_hold_their_gradients_twice():
    none = ModelSize(num_parameters=GIB, num_bytes=2 * GIB)
    trainer = trainer_memory(config_of(sft={"method": "full"}, trainers={"num_workers": 2, "num_gpus": 1}), none)
    assert trainer.gradients_gib == 8


def test_a_reference_is_held_before_gradients_come():
    none = ModelSize(num_parameters=GIB, num_bytes=2 * GIB)
    own, other = (trainer_memory(config_of(dpo={"reference": which}), none) for which in ("previous", "initial"))
    assert (own.reference_gib, other.reference_gib) == (0, 2)
    # An adapter's gradients, moments and copies are 0.1 * (4 + 8 + 4); the reference alone is more.
    assert other.needed_gib - own.needed_gib == pytest.approx(2 - 1.6)


def test_what_shares_a_gpu_adds_up():
    config = config_of()
    engine, trainer = engine_memory(config, SIZE), trainer_memory(config, SIZE)
    assert gpu_uses(config) == [GpuUse(num_engines=0, num_workers=1), GpuUse(num_engines=1, num_workers=1)]
    both = GpuUse(num_engines=1, num_workers=1)
    # The worker has the 0.55 of the GPU that the engine leaves: 38.84 / 0.55.
    assert both.least_gpu_gib(engine, trainer) == pytest.approx(70.6, abs=0.1)
    # With 128 sequences the engine has 18.80 + 14.0, and needs 0.45 of the GPU for them.
    assert both.least_gpu_gib(engine, trainer, 128) == pytest.approx(72.9, abs=0.1)


def test_whole_gpus_are_not_shared():
    config = config_of(engines={"num_gpus": 1, "num_engines": 2}, trainers={"num_gpus": 1, "num_workers": 4})
    assert gpu_uses(config) == [GpuUse(num_engines=0, num_workers=1), GpuUse(num_engines=1, num_workers=0)]


def test_several_small_engines_may_come_to_lie_on_one_gpu():
    config = config_of(engines={"num_gpus": 0.1, "num_engines": 20}, trainers={"num_gpus": 0})
    assert gpu_uses(config)[-1] == GpuUse(num_engines=10, num_workers=0)
    engine = engine_memory(config, SIZE)
    assert GpuUse(num_engines=2, num_workers=0).least_gpu_gib(engine, None) == pytest.approx(18.91 / 0.45, abs=0.1)
    assert math.isinf(GpuUse(num_engines=3, num_workers=0).least_gpu_gib(engine, None))


@pytest.mark.parametrize(
    ("engines", "trainers", "expected"),
    [
        ((3, 0.6), (1, 0), 3),  # 1.8 in sum, but no GPU has room for two
        ((3, 0.6), (2, 0.4), 3),
        ((10, 0.1), (1, 0.1), 2),
        ((1, 0.5), (1, 0.5), 1),
        ((2, 2), (4, 1), 8),
        ((2, 0), (2, 0), 0),
    ],
)
def test_gpus_are_counted_by_what_each_has_room_for(
    engines: tuple[int, float], trainers: tuple[int, float], expected: int
):
    config = config_of(
        engines={"num_engines": engines[0], "num_gpus": engines[1]},
        trainers={"num_workers": trainers[0], "num_gpus": trainers[1]},
    )
    assert num_gpus(config) == expected


def test_nothing_lies_on_a_gpu_where_none_is_asked_for():
    assert gpu_uses(config_of(engines={"num_gpus": 0}, trainers={"num_gpus": 0})) == []
