"""Real engines in Ray actors: what the pool gives back does not depend on which engine dies when."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.pool import EnginePool
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout
from medcritical_ray.rollouts import Completion, Request

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SAMPLED = SamplingConfig(temperature=1.0, max_tokens=32)
KEYS = [f"block-{n}" for n in range(12)]
BLOCKS = [(key, [Request(prompt=f" w{n} w{i}", seed=100 * n + i) for i in range(8)]) for n, key in enumerate(KEYS)]


@pytest.fixture(scope="module")
def pool(ray_cluster: None, tied_policies: tuple[Path, Path], engines_config: EnginesConfig) -> Iterator[EnginePool]:
    """Two engines, one of which may be replaced. The tests below use it in turn."""
    config = engines_config.model_copy(update={"num_engines": 2, "max_restarts": 1})
    with EnginePool(config, 0, tied_policies[0], name="test") as pool:
        pool.wait_until_serving()
        yield pool


def kill(actor_name: str) -> None:
    """Kills an engine's process, as a lost machine would."""
    process_id = ray.get(ray.get_actor(actor_name).__ray_call__.remote(lambda actor: os.getpid()))
    os.kill(process_id, signal.SIGKILL)


def written(pool: EnginePool) -> list[tuple[str, list[Completion]]]:
    return list(pool.map(BLOCKS, SAMPLED))


def test_every_block_comes_back_once_in_order_and_the_same_each_time(pool: EnginePool):
    first = written(pool)
    assert [key for key, _ in first] == KEYS
    assert [len(completions) for _, completions in first] == [8] * 12
    assert written(pool) == first


def test_versions_of_two_runs_may_have_the_same_number(pool: EnginePool, tied_policies: tuple[Path, Path]):
    of_one_run = written(pool)
    assert pool.serves(0, tied_policies[0])
    assert not pool.serves(0, tied_policies[1])
    pool.broadcast(0, tied_policies[1])
    assert written(pool) != of_one_run
    pool.broadcast(0, tied_policies[0])
    assert written(pool) == of_one_run


def test_a_prompt_that_does_not_fit_is_the_users_to_mend_and_the_pool_goes_on(pool: EnginePool):
    with pytest.raises(UserError, match=r"^engines\.max_model_len 128 is too short"):
        list(pool.map([("too-long", [Request(prompt=" w1" * 120, seed=0)])], SAMPLED))
    assert [key for key, _ in written(pool)] == KEYS


def test_an_engine_that_dies_is_replaced_by_one_that_serves_the_current_version(
    pool: EnginePool, tied_policies: tuple[Path, Path]
):
    of_first_version = written(pool)
    pool.broadcast(1, tied_policies[1])
    undisturbed = written(pool)
    disturbed = []
    for answer in pool.map(BLOCKS, SAMPLED):
        if not disturbed:
            kill("test-0#1")
        disturbed.append(answer)
    pool.wait_until_serving()
    assert disturbed == undisturbed
    assert undisturbed != of_first_version
    assert (pool.version, pool.num_restarts) == (1, 1)
    kill("test-1#1")
    with pytest.raises(RunFailed, match=r"test-1 is dead \(blocks block-.*\): .*engines\.max_restarts"):
        written(pool)


def test_engines_of_adapters_take_the_next_one_and_a_replacement_takes_the_current_one(
    ray_cluster: None,
    adapter_policies: tuple[Path, Path],
    engines_config: EnginesConfig,
):
    with EnginePool(engines_config, 1, adapter_policies[0], name="lora", max_lora_rank=4) as pool:
        with_first = written(pool)
        pool.broadcast(2, adapter_policies[1])
        with_second = written(pool)
        kill("lora-0#1")
        assert written(pool) == with_second
        assert with_first != with_second
        assert pool.num_restarts == 1


def test_an_engine_that_does_not_start_in_time_is_named_with_the_key_to_raise(
    ray_cluster: None, tied_policies: tuple[Path, Path], engines_config: EnginesConfig
):
    config = engines_config.model_copy(update={"start_timeout_s": 0.1})
    message = r"1 of 1 engines not on version 0 after 0\.1 s \(late-0\): raise engines\.start_timeout_s"
    with EnginePool(config, 0, tied_policies[0], name="late") as pool, pytest.raises(WaitTimeout, match=message):
        pool.wait_until_serving()


def test_settings_that_the_model_does_not_take_are_the_users_to_mend(
    ray_cluster: None, tied_policies: tuple[Path, Path], engines_config: EnginesConfig
):
    config = engines_config.model_copy(update={"max_model_len": 4096})
    with (
        EnginePool(config, 0, tied_policies[0], name="broken") as pool,
        pytest.raises(UserError, match=r"vLLM does not take .*max_model_len \(4096\)"),
    ):
        pool.wait_until_serving()


def test_a_directory_without_weights_is_refused_before_any_engine_starts(tmp_path: Path, engines_config: EnginesConfig):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no weights: \*\.safetensors files must lie there"):
        EnginePool(engines_config, 0, tmp_path, name="empty")
