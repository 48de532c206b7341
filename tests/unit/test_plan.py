"""The plan of a run, and what a cluster may lack for it."""

import pytest

from medcritical_ray.config import Config
from medcritical_ray.estimates import Rows
from medcritical_ray.model_files import ModelSize
from medcritical_ray.plan import ClusterResources, compare, describe, make_plan

GIB = 2**30
BIG = ClusterResources(
    num_cpus=100, num_gpus=8, memory_gib=1000, disk_gib=1000, object_store_gib=100, gpu_memory_gib=140
)
SEVEN_B = ModelSize(num_parameters=7 * GIB, num_bytes=14 * GIB)
QUARTER_GIB = ModelSize(num_parameters=GIB // 4, num_bytes=GIB)


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
    assert make_plan(config, None).rows == Rows(
        num_questions=1000, num_attempts=4000, num_corrections=12_000, num_pairs=4000
    )


def test_rows_are_of_the_questions_of_one_iteration():
    config = config_of(questions={"num_train": 1000}, generate={"num_questions": 300, "num_attempts": 2})
    assert make_plan(config, None).rows.num_attempts == 600


def test_pairs_are_no_more_than_the_limit():
    assert make_plan(config_of(pairs={"max_pairs": 10}), None).rows.num_pairs == 10


def test_engines_workers_and_data_add_up_on_the_cpu():
    plan = make_plan(on_cpu(), QUARTER_GIB)
    assert (plan.num_engines, plan.num_workers, plan.num_cpus, plan.num_gpus) == (2, 2, 2.0, 0)


def test_memory_on_the_cpu_is_processes_weights_caches_and_training_states():
    plan = make_plan(on_cpu(), QUARTER_GIB)
    assert plan.engines_memory_gib == pytest.approx(2 * (1.2 + 1.0 + 0.5))
    assert plan.trainers_memory_gib == pytest.approx(2 * (1.0 + 4.0 + 1.0))
    assert plan.ray_memory_gib == pytest.approx(1.5)
    assert plan.memory_gib == pytest.approx(18.9)


def test_an_adapter_needs_no_moments_of_the_frozen_weights():
    plan = make_plan(on_cpu(sft={"method": "lora"}, dpo={"method": "lora"}), QUARTER_GIB)
    assert plan.trainers_memory_gib == pytest.approx(2 * (1.0 + 1.4 + 1.0))
    assert plan.object_store_gib == 0


def test_separate_correctors_are_engines_too():
    plan = make_plan(config_of(engines={"num_engines": 2, "separate_corrector": 1}), None)
    assert plan.num_engines == 3
    assert plan.num_gpus == 4


def test_gpus_hold_weights_split_over_them():
    plan = make_plan(config_of(engines={"num_gpus": 2, "tensor_parallel_size": 2}), SEVEN_B)
    assert plan.gpu_engine_weights_gib == pytest.approx(7.0)
    assert plan.gpu_trainer_gib == pytest.approx(7 * (2 + 1.6 + 2))


def test_disk_holds_a_policy_per_version_and_the_rows():
    one_token, no_tokens_to_speak_of = {"sampling": {"max_tokens": 1}}, 0.001
    config = on_cpu(questions={"num_train": 1000}, generate=one_token, correct=one_token)
    assert make_plan(config, QUARTER_GIB).disk_gib == pytest.approx(2 + 3, abs=no_tokens_to_speak_of * 3)


def test_rows_on_disk_are_counted_by_their_tokens():
    config = config_of(
        run={"num_iterations": 2},
        questions={"num_train": 1000},
        generate={"num_attempts": 2, "sampling": {"max_tokens": 100}},
        correct={"num_corrections": 3, "sampling": {"max_tokens": 200}},
        pairs={"max_pairs": 50},
    )
    # 2,000 attempts of 100 tokens, 6,000 corrections and 50 pairs of four texts of 300 tokens; 8 bytes each, twice.
    assert make_plan(config, None).disk_gib * GIB == pytest.approx(2 * 8 * (200_000 + 1_800_000 + 60_000))


def test_the_size_of_a_fresh_student_is_computed():
    fresh = {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "intermediate_size": 384, "vocab_size": 1000}
    plan = make_plan(on_cpu(student={"fresh": fresh}), None)
    # 128,000 of embeddings, 4 layers of 65,920 + 147,456 + 256, and the last norm's 128.
    assert plan.object_store_gib * GIB == pytest.approx(4 * 982_656)


def test_a_plan_that_fits_has_no_shortfalls():
    assert compare(make_plan(config_of(), SEVEN_B), BIG) == []
    assert compare(make_plan(on_cpu(), QUARTER_GIB), BIG) == []


def test_each_shortfall_names_what_is_there_and_what_to_change():
    small = ClusterResources(num_cpus=1, num_gpus=0, memory_gib=8, disk_gib=0.5, object_store_gib=0.5)
    cpus, memory, store, disk = compare(make_plan(on_cpu(), QUARTER_GIB), small)
    assert cpus == (
        "CPUs: 2 needed (1 of them for Ray Data), 1 there: lower engines.num_engines, engines.num_cpus, "
        "trainers.num_workers or trainers.num_cpus"
    )
    assert memory == (
        "memory: 18.9 GiB needed (engines 5.4, training workers 12.0, Ray and driver 1.5), 8.0 GiB there: lower "
        "engines.num_engines, engines.kv_cache_gib or trainers.num_workers"
    )
    assert store.startswith(
        "object store: 1.00 GiB needed for a weight update, 0.50 GiB there: raise cluster.object_st"
    )
    assert "0.5 GiB there: lower run.num_iterations or correct.num_corrections, or move run.directory" in disk


def test_missing_gpus_are_told():
    no_gpus = ClusterResources(num_cpus=16, num_gpus=1, memory_gib=500, disk_gib=500)
    assert compare(make_plan(config_of(), SEVEN_B), no_gpus) == [
        "GPUs: 2 needed, 1 there: lower engines.num_engines, engines.num_gpus, "
        "trainers.num_workers or trainers.num_gpus"
    ]


def test_gpus_that_are_too_small_are_told():
    plan = make_plan(config_of(sft={"method": "full"}), SEVEN_B)
    small_gpus = ClusterResources(num_cpus=16, num_gpus=2, memory_gib=500, disk_gib=500, gpu_memory_gib=16)
    weights, states = compare(plan, small_gpus)
    assert weights.startswith(
        "GPU memory: 14.0 GiB needed for an engine's weights, 0.85 of 16.0 GiB there: raise engines"
    )
    assert states.startswith(
        "GPU memory: 126.0 GiB needed per training worker, 16.0 GiB there: set sft.method and dpo.m"
    )


def test_what_is_unknown_is_not_compared():
    unknown = ClusterResources(num_cpus=16, num_gpus=2, memory_gib=500, disk_gib=500)
    assert compare(make_plan(config_of(dpo={"method": "full"}), SEVEN_B), unknown) == []


def test_a_plan_can_be_read():
    assert describe(make_plan(on_cpu(), QUARTER_GIB)).splitlines()[4] == (
        "CPUs                2, 1 of them for Ray Data"
    )
