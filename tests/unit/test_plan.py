"""The plan of a run, and what a cluster may lack for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from medcritical_ray.config import Config
from medcritical_ray.config_files import load_config
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.architecture import Architecture
from medcritical_ray.planning.estimates import Rows
from medcritical_ray.planning.fit import ClusterResources, compare
from medcritical_ray.planning.placement import Node
from medcritical_ray.planning.plan import make_plan
from medcritical_ray.planning.plan_text import describe, describe_cache

GIB = 2**30
BIG = ClusterResources(
    num_cpus=100, num_gpus=8, memory_gib=1000, disk_gib=1000, object_store_gib=100, gpu_memory_gib=140
)
CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
SHARED_GPU = CONFIGS / "qwen2.5_7b_cmexam_1gpu.toml"
SEVEN_B_CONFIGS = [SHARED_GPU, CONFIGS / "qwen2.5_7b_cmexam_8gpu.toml", CONFIGS / "qwen2.5_7b_cmexam_cluster.toml"]
QWEN_7B = ModelSize(
    num_parameters=7_615_616_512,
    num_bytes=15_231_233_024,
    architecture=Architecture(
        hidden_size=3584,
        num_layers=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        intermediate_size=18944,
        vocab_size=152064,
        tied_embeddings=False,
        num_vector_parameters=11_776,
    ),
)
SEVEN_B = ModelSize(num_parameters=7 * GIB, num_bytes=14 * GIB)
QUARTER_GIB = ModelSize(num_parameters=GIB // 4, num_bytes=GIB)


def gpus_of(gib: float | None) -> ClusterResources:
    """A cluster with enough of everything but, maybe, of its GPUs' memory."""
    return replace(BIG, num_gpus=16, gpu_memory_gib=gib)


def config_of(**parts: dict) -> Config:
    return Config.model_validate(parts)


def on_cpu(**parts: dict) -> Config:
    """Two engines and two workers of a quarter CPU each, and full weights in float32."""
    return config_of(
        engines={"num_engines": 2, "num_cpus": 0.25, "num_gpus": 0, "dtype": "float32", "kv_cache_gib": 0.5},
        trainers={"num_workers": 2, "num_cpus": 0.25, "num_gpus": 0},
        **{"sft": {"method": "full"}, "dpo": {"method": "full"}, "cluster": {"object_store_mib": 512}, **parts},
    )


def test_rows_are_counted_as_if_every_attempt_were_wrong():
    config = config_of(
        questions={"num_train": 1000},
        generate={"num_attempts": 4},
        correct={"num_corrections": 3},
        pairs={"max_pairs_per_question": 2, "shares": {"correction": 0.5, "own": 0.5, "keep": 0.0}},
    )
    assert make_plan(config, QUARTER_GIB).rows == Rows(
        num_questions=1000, num_attempts=4000, num_corrections=12_000, num_candidates=4000, num_pairs=4000
    )


def test_rows_are_of_the_questions_of_one_iteration():
    config = config_of(questions={"num_train": 1000}, generate={"num_questions": 300, "num_attempts": 2})
    assert make_plan(config, QUARTER_GIB).rows.num_attempts == 600


def test_pairs_are_no_more_than_the_limit():
    assert make_plan(config_of(pairs={"max_pairs": 10}), QUARTER_GIB).rows.num_pairs == 10


def test_engines_workers_and_data_add_up_on_the_cpu():
    plan = make_plan(on_cpu(), QUARTER_GIB)
    assert (plan.num_engines, plan.num_workers, plan.num_cpus, plan.num_gpus) == (2, 2, 1.0, 0)


def test_memory_on_the_cpu_is_processes_weights_caches_and_training_states():
    plan = make_plan(on_cpu(), QUARTER_GIB)
    assert plan.engines_memory_gib == pytest.approx(2 * (1.2 + 1.0 + 0.5))
    assert plan.trainers_memory_gib == pytest.approx(2 * (1.0 + 4.0))
    assert plan.ray_memory_gib == pytest.approx(1.5)
    assert plan.memory_gib == pytest.approx(16.9)


def test_an_adapter_needs_no_moments_of_the_frozen_weights():
    plan = make_plan(on_cpu(sft={"method": "lora"}, dpo={"method": "lora"}), QUARTER_GIB)
    assert plan.trainers_memory_gib == pytest.approx(2 * (1.0 + 1.4))
    assert plan.object_store_gib == 0


def test_separate_correctors_are_engines_too():
    plan = make_plan(config_of(engines={"num_engines": 2, "separate_corrector": 1}), QUARTER_GIB)
    assert plan.num_engines == 3
    assert plan.num_gpus == 4


def test_gpus_hold_weights_split_over_them():
    plan = make_plan(config_of(engines={"num_gpus": 2, "tensor_parallel_size": 2}), SEVEN_B)
    assert plan.engine is not None
    assert plan.engine.weights_gib == pytest.approx(7.0)
    assert plan.trainer is not None
    assert plan.trainer.weights_gib == pytest.approx(7 * 2 + 0.7 * 4)


def test_disk_holds_a_policy_per_version_and_the_rows():
    one_token, no_tokens_to_speak_of = {"sampling": {"max_tokens": 1}}, 0.001
    config = on_cpu(questions={"num_train": 1000}, generate=one_token, correct=one_token)
    assert make_plan(config, QUARTER_GIB).disk_gib == pytest.approx(2 + 3, abs=no_tokens_to_speak_of * 4)


def test_pruned_policies_take_no_disk_but_those_in_use_do():
    one_token = {"sampling": {"max_tokens": 1}}
    parts = {"questions": {"num_train": 1000}, "generate": one_token, "correct": one_token}
    pruned = on_cpu(**parts, run={"num_iterations": 100, "keep_policies": 2})
    assert make_plan(pruned, QUARTER_GIB).disk_gib == pytest.approx(2 + 6, abs=0.1)
    few = on_cpu(**parts, run={"num_iterations": 3, "keep_policies": 2})
    assert make_plan(few, QUARTER_GIB).disk_gib == pytest.approx(2 + 3, abs=0.01)


def test_rows_on_disk_are_counted_by_their_tokens():
    config = config_of(
        run={"num_iterations": 2},
        questions={"num_train": 1000, "num_dev": 10, "num_test": 20},
        teacher={"num_questions": 5},
        sft={"own_attempts": 3},
        generate={"num_attempts": 2, "sampling": {"max_tokens": 100}},
        correct={"num_corrections": 3, "sampling": {"max_tokens": 200}},
        pairs={"max_pairs": 50, "max_pairs_per_question": 1, "shares": {"correction": 1.0}},
        evaluate={"num_passes": 4, "corrected_share": 0.5},
    )
    # Each iteration: 2,000 attempts of 100 tokens, 6,000 corrections of 300, 1,000 candidates and 50 pairs of four such
    # texts.
    # Evaluations, of four policies: 30 questions with five attempts each, and two corrections of one in two.
    # Stage 1: 15 attempts in two demonstrations each, of four texts.
    num_tokens = 2 * (200_000 + 1_800_000 + 1_260_000) + 4 * 30 * (500 + 300) + 15 * (100 + 2 * 4 * 300)
    tiny = ModelSize(num_parameters=1, num_bytes=2)
    assert make_plan(config, tiny).disk_gib * GIB == pytest.approx(8 * num_tokens)


def test_the_size_of_a_fresh_student_is_computed():
    fresh = {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "intermediate_size": 384, "vocab_size": 1000}
    plan = make_plan(on_cpu(student={"fresh": fresh}), None)
    # 128,000 of embeddings, 4 layers of 65,920 + 147,456 + 256, and the last norm's 128.
    assert plan.object_store_gib * GIB == pytest.approx(4 * 982_656)


def test_a_plan_that_fits_has_no_shortfalls():
    assert compare(make_plan(config_of(), SEVEN_B), BIG) == []
    assert compare(make_plan(on_cpu(), QUARTER_GIB), BIG) == []


def test_each_shortfall_names_what_is_there_and_what_to_change():
    small = ClusterResources(num_cpus=0.5, num_gpus=0, memory_gib=8, disk_gib=0.5, object_store_gib=0.5)
    cpus, memory, store, disk = compare(make_plan(on_cpu(), QUARTER_GIB), small)
    assert cpus == (
        "CPUs: 1 needed, 0.5 there: lower engines.num_engines, engines.num_cpus, "
        "trainers.num_workers or trainers.num_cpus"
    )
    assert memory == (
        "memory: 16.9 GiB needed (engines 5.4, training workers 10.0, Ray and driver 1.5), 8.0 GiB there: lower "
        "engines.num_engines, engines.kv_cache_gib or trainers.num_workers"
    )
    assert store.startswith(
        "object store: 1.00 GiB needed for a weight update, 0.50 GiB there: raise cluster.object_st"
    )
    assert "0.5 GiB there: set run.keep_policies, lower run.num_iterations or correct.num_corrections, or move" in disk


def test_one_machine_needs_no_object_store_for_a_weight_update():
    node = Node(labels={}, num_cpus=100, num_gpus=8, memory_gib=1000)
    alone = replace(BIG, object_store_gib=0.5, nodes=(node,))
    plan = make_plan(on_cpu(), QUARTER_GIB)
    assert compare(plan, alone) == []
    for more in (replace(alone, nodes=(node, node)), replace(alone, grows=True)):
        assert [line.split(":")[0] for line in compare(plan, more)] == ["object store"]


def test_missing_gpus_are_told():
    no_gpus = ClusterResources(num_cpus=16, num_gpus=1, memory_gib=500, disk_gib=500)
    assert compare(make_plan(config_of(), SEVEN_B), no_gpus) == [
        "GPUs: 2 needed, 1 there: lower engines.num_engines, engines.num_gpus, "
        "trainers.num_workers or trainers.num_gpus"
    ]


def test_where_there_is_no_gpu_the_keys_that_do_without_are_told():
    no_gpus = ClusterResources(num_cpus=16, num_gpus=0, memory_gib=500, disk_gib=500)
    assert compare(make_plan(config_of(), SEVEN_B), no_gpus) == [
        "GPUs: 2 needed, 0 there: to run on CPUs, set engines.num_gpus = 0 and trainers.num_gpus = 0"
    ]


def test_gpus_that_are_too_small_are_told():
    plan = make_plan(config_of(sft={"method": "full"}), SEVEN_B)
    small_gpus = ClusterResources(num_cpus=16, num_gpus=2, memory_gib=500, disk_gib=500, gpu_memory_gib=16)
    engine, worker = compare(plan, small_gpus)
    # Weights, an adapter for DPO, and the process.
    assert engine == (
        "GPU memory: 17.4 GiB needed for an engine's weights, work and one sequence, 0.85 of 16.0 GiB there: raise "
        "engines.gpu_memory_utilization or engines.tensor_parallel_size, or lower engines.max_model_len"
    )
    assert worker.startswith(
        "GPU memory: 143.4 GiB needed per training worker, 16.0 GiB there: set sft.method and dpo.m"
    )


def test_what_is_unknown_is_not_compared():
    unknown = ClusterResources(num_cpus=16, num_gpus=2, memory_gib=500, disk_gib=500)
    assert compare(make_plan(config_of(dpo={"method": "full"}), SEVEN_B), unknown) == []


def test_a_plan_can_be_read():
    lines = describe(make_plan(on_cpu(), QUARTER_GIB)).splitlines()
    assert lines[0] == "model                 268,435,456 parameters"
    assert lines[5] == "CPUs                  1"
    assert not [line for line in lines if line.startswith("GPU ") or "GiB per GPU" in line]


def test_a_plan_says_what_each_gpu_holds():
    plan = make_plan(load_config(SHARED_GPU, []), QWEN_7B)
    engine, cache, worker, least = describe(plan).splitlines()[-4:]
    assert engine == "GPU, engine           18.8 GiB and the KV cache: weights 14.2, adapter 0.2, work 4.5"
    assert cache == "KV cache              56.0 KiB per token, 0.11 GiB per 2,048 tokens"
    assert worker == (
        "GPU, training worker  38.8 GiB: weights 14.5, gradients 0.3, moments 0.6, activations 5.6, logits 13.9, "
        "process 4.0"
    )
    assert least == (
        "GPU memory            at least 70.6 GiB per GPU; 72.9 GiB to write 128 sequences of full length at the same "
        "time"
    )
    assert list(describe_cache(plan.engine, 80)) == [
        "KV cache there        0.45 of 80.0 GiB leaves 17.2 GiB: 322,110 tokens, 157 sequences of 2,048 tokens "
        "(engines.max_num_seqs = 128)"
    ]


def test_what_is_left_for_the_cache_is_told_only_where_model_and_gpu_are_known():
    known, unknown = (make_plan(config_of(), size).engine for size in (QWEN_7B, SEVEN_B))
    assert len(list(describe_cache(known, 79.0))) == 1
    assert list(describe_cache(known, None)) == list(describe_cache(unknown, 79.0)) == []


def test_a_plan_says_what_it_cannot_tell():
    unknown = ModelSize(num_parameters=7 * GIB, num_bytes=14 * GIB, untold="config.json does not say vocab_size")
    assert (
        "GPU memory unknown    config.json does not say vocab_size: no activations, logits, keys and values above"
        in describe(make_plan(config_of(), unknown)).splitlines()
    )


def test_weights_that_config_does_not_explain_are_told():
    assert describe(make_plan(config_of(), replace(QWEN_7B, num_parameters=8 * 10**9))).startswith(
        "model                 8,000,000,000 parameters, though its config.json makes 7,615,616,512\n"
    )


@pytest.mark.parametrize("path", SEVEN_B_CONFIGS, ids=lambda path: path.name)
def test_the_shipped_7b_configs_fit_gpus_of_80_gb(path: Path):
    assert compare(make_plan(load_config(path, []), QWEN_7B), gpus_of(79.1)) == []


@pytest.mark.parametrize("path", SEVEN_B_CONFIGS, ids=lambda path: path.name)
def test_the_shipped_7b_configs_name_what_to_lower_on_gpus_of_48_gb(path: Path):
    (shortfall,) = compare(make_plan(load_config(path, []), QWEN_7B), gpus_of(47.4))
    assert shortfall.startswith("GPU memory: ")
    assert "lower" in shortfall
    assert "trainers.max_tokens_per_forward" in shortfall


def test_the_shared_gpu_of_the_shipped_config_may_be_too_small_for_both():
    (shortfall,) = compare(make_plan(load_config(SHARED_GPU, []), QWEN_7B), gpus_of(70))
    assert shortfall == (
        "GPU memory: 1 x 0.45 of it for engines and 1 x 38.8 GiB for training workers share a GPU of 70.0 GiB: lower "
        "engines.gpu_memory_utilization or trainers.max_tokens_per_forward, or raise engines.num_gpus or "
        "trainers.num_gpus, so that fewer share it"
    )


def test_an_engine_that_leaves_a_worker_nothing_is_told_whatever_the_gpu():
    config = load_config(SHARED_GPU, ["engines.gpu_memory_utilization=1.0"])
    (shortfall,) = compare(make_plan(config, QWEN_7B), gpus_of(None))
    assert shortfall.startswith(
        "GPU memory: 1 x 1 of it for engines and 1 x 38.8 GiB for training workers share a GPU:"
    )


def test_a_7b_model_without_checkpointing_is_told_to_use_it():
    config = load_config(SEVEN_B_CONFIGS[1], ["trainers.gradient_checkpointing=false"])
    (shortfall,) = compare(make_plan(config, QWEN_7B), gpus_of(79.1))
    assert "set trainers.gradient_checkpointing = true" in shortfall


def test_full_weights_of_a_7b_model_are_told_to_be_an_adapter():
    config = load_config(SEVEN_B_CONFIGS[1], ["dpo.method=full", "trainers.max_tokens_per_forward=4096"])
    (*_, shortfall) = compare(make_plan(config, QWEN_7B), gpus_of(139.8))
    assert shortfall.endswith("set sft.method and dpo.method to 'lora', or take a smaller student.path")


def test_workers_that_would_share_a_gpu_are_refused():
    config = load_config(SHARED_GPU, ["trainers.num_workers=2", "trainers.num_gpus=0.25"])
    assert "GPUs: two training workers may come to lie on one, which NCCL refuses" in " ".join(
        compare(make_plan(config, QWEN_7B), gpus_of(200))
    )
