"""A real vLLM engine: after any update it writes, token for token, what a freshly started one writes."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save

from medcritical_ray.chat import prompt_token_ids
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.engine import Engine, Sample
from medcritical_ray.engines.served import SERVED_RANKS, StaleVersion
from medcritical_ray.engines.weights import decode_weights, read_blobs
from medcritical_ray.errors import UserError
from medcritical_ray.rollouts import Request

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GREEDY = SamplingConfig(temperature=0.0, max_tokens=24)
SAMPLED = SamplingConfig(temperature=1.0, max_tokens=24)
REQUESTS = [Request(prompt="".join(f" w{(n * k) % 60}" for k in range(1, 9)), seed=n) for n in range(16)]


def written(engine: Engine, version: int) -> list[Sample]:
    return engine.sample(REQUESTS, GREEDY, version) + engine.sample(REQUESTS, SAMPLED, version)


@contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Engine]:
    """An engine that is gone at the end: vLLM holds one in a process at a time."""
    engines = [Engine(*arguments, **options)]
    yield engines[0]
    engines.clear()
    gc.collect()


def test_texts_are_drawn_as_temperature_and_mass_have_it_and_each_seed_has_its_own(
    tied_policies: tuple[Path, Path], engines_config: EnginesConfig
):
    requests = [Request(prompt=" w1 w2", seed=seed) for seed in range(40)]

    def texts(**sampling: float) -> set[tuple[int, ...]]:
        config = SamplingConfig(max_tokens=8, **sampling)  # type: ignore[arg-type]  # no other field is meant
        return {sample.token_ids for sample in engine.sample(requests, config, 0)}

    with running(tied_policies[0], 0, engines_config) as engine:
        greedy = texts(temperature=0.0)
        assert len(greedy) == 1
        assert len(texts(temperature=1.0)) > 30  # some end at once
        assert texts(temperature=1e-4) == greedy
        assert texts(temperature=1.0, top_p=1e-4) == greedy
        assert 1 < len(texts(temperature=1.0, top_p=0.2)) < len(texts(temperature=1.0))


@pytest.mark.parametrize("policies", ["tied_policies", "untied_policies"])
def test_an_updated_engine_writes_what_a_fresh_one_writes_whether_embeddings_are_tied_or_not(
    policies: str, request: pytest.FixtureRequest, engines_config: EnginesConfig
):
    base, trained = request.getfixturevalue(policies)
    with running(trained, 1, engines_config) as fresh:
        written_by_fresh = written(fresh, 1)
    with running(base, 0, engines_config) as updated:
        before = written(updated, 0)
        updated.update_weights(1, read_blobs(trained))
        assert updated.version == 1
        assert written(updated, 1) == written_by_fresh
        assert before != written_by_fresh
        updated.update_weights(0, [file.read_bytes() for file in base.glob("*.safetensors")])
        assert written(updated, 0) == before


def test_an_engine_takes_adapters_and_weights_in_turn_and_writes_what_a_fresh_one_writes(
    tied_policies: tuple[Path, Path], adapter_policies: tuple[Path, Path], engines_config: EnginesConfig
):
    base, trained = tied_policies
    with running(base, 0, engines_config, max_lora_rank=4) as fresh:
        without = written(fresh, 0)
        fresh.use_adapter(2, adapter_policies[1])
        second_of_fresh = written(fresh, 2)
    with running(trained, 0, engines_config, max_lora_rank=4) as updated:
        trained_of_fresh = written(updated, 0)
        updated.update_weights(1, read_blobs(base))
        assert written(updated, 1) == without
        updated.use_adapter(2, adapter_policies[0])
        first = written(updated, 2)
        updated.use_adapter(3, adapter_policies[1])
        assert updated.version == 3
        assert written(updated, 3) == second_of_fresh
        assert first not in (without, second_of_fresh)
        updated.update_weights(4, read_blobs(trained))
        assert written(updated, 4) == trained_of_fresh


@pytest.fixture(scope="module")
def engine(tied_policies: tuple[Path, Path], engines_config: EnginesConfig) -> Iterator[Engine]:
    with running(tied_policies[0], 0, engines_config) as engine:
        yield engine


def test_a_call_for_a_version_that_is_not_served_is_refused(engine: Engine):
    with pytest.raises(StaleVersion, match="serves policy version 0, not 7"):
        engine.generate(REQUESTS, GREEDY, version=7)


def test_a_completion_depends_on_its_own_request_alone(engine: Engine):
    together = engine.generate(REQUESTS, SAMPLED, version=0)
    alone = [engine.generate([request], SAMPLED, version=0)[0] for request in REQUESTS[:4]]
    assert together[:4] == alone


def test_an_engine_goes_step_by_step_and_writes_what_vllm_writes_in_one_go(engine: Engine):
    before = engine.num_steps
    stepwise = engine.sample(REQUESTS, SAMPLED, version=0)
    assert 24 <= engine.num_steps - before <= 24 + len(REQUESTS)
    prompts = [{"prompt_token_ids": ids} for ids in prompt_token_ids(engine._tokenizer, [r.prompt for r in REQUESTS])]
    params = [engine._sampling_params(SAMPLED, request.seed) for request in REQUESTS]
    at_once = [output.outputs[0] for output in engine._llm.generate(prompts, params, use_tqdm=False)]
    assert [sample.token_ids for sample in stepwise] == [tuple(output.token_ids) for output in at_once]


def test_what_is_cut_off_is_not_finished(engine: Engine):
    cut = engine.generate(REQUESTS, SamplingConfig(temperature=0.0, max_tokens=1), version=0)
    assert {(completion.finished, completion.num_tokens) for completion in cut} == {(False, 1)}


def test_a_context_too_short_for_a_prompt_is_the_users_to_mend(engine: Engine):
    with pytest.raises(UserError, match=r"engines\.max_model_len 128 is too short: a prompt of 121 tokens and 24 new"):
        engine.generate([Request(prompt=" w1" * 120, seed=0)], GREEDY, version=0)


def test_weights_of_another_model_are_refused_and_the_engine_goes_on(
    engine: Engine, untied_policies: tuple[Path, Path]
):
    with pytest.raises(UserError, match="have an output head of their own"):
        engine.update_weights(1, read_blobs(untied_policies[1]))
    with pytest.raises(UserError, match=r"\d+ tensors missing, 1 unknown"):
        engine.update_weights(1, [save({"lm_head.bias": torch.zeros(2)})])
    assert len(engine.generate(REQUESTS, GREEDY, version=0)) == 16


def test_a_checkpoint_that_spells_out_its_tied_output_head_is_taken(engine: Engine, tied_policies: tuple[Path, Path]):
    weights = decode_weights(read_blobs(tied_policies[0]))
    engine.update_weights(0, [save({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()})])
    assert engine.version == 0


def test_the_ranks_of_adapters_are_those_that_vllm_serves():
    from vllm.config.lora import MaxLoRARanks

    assert get_args(MaxLoRARanks) == SERVED_RANKS


@pytest.mark.parametrize(
    ("kv_cache_gib", "remedy"),
    [
        (1e-5, "raise engines.gpu_memory_utilization (on the CPU engines.kv_cache_gib), or lower engines.max_num_seqs"),
        (1e5, "lower engines.kv_cache_gib"),
    ],
)
def test_an_engine_that_finds_no_room_for_keys_and_values_says_what_to_set(
    tied_policies: tuple[Path, Path], engines_config: EnginesConfig, kv_cache_gib: float, remedy: str
):
    config = engines_config.model_copy(update={"kv_cache_gib": kv_cache_gib})
    with pytest.raises(UserError) as caught:
        Engine(tied_policies[0], 0, config)
    assert str(caught.value).endswith(f"; {remedy}")
