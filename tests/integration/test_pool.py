"""Real engines in Ray actors: what the pool gives back does not depend on which engine dies when."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.pool import EnginePool
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.run.policies import PolicyStore

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SAMPLED = SamplingConfig(temperature=1.0, max_tokens=32)
STILL_S = 10.0
"""The seconds that an engine here may go without progress: a busy machine holds one up for a while."""
KEYS = [f"block-{n}" for n in range(12)]
BLOCKS = [(key, [Request(prompt=f" w{n} w{i}", seed=100 * n + i) for i in range(8)]) for n, key in enumerate(KEYS)]


class Events(list[tuple[str, str]]):
    """The events that a pool notes, and which engine each is about."""

    def note(self, event: str, **fields: Any) -> None:
        self.append((event, fields["engine"]))


@pytest.fixture(scope="module")
def events() -> Events:
    return Events()


@pytest.fixture(scope="module")
def pool(
    ray_cluster: None, tied_policies: tuple[Path, Path], engines_config: EnginesConfig, events: Events
) -> Iterator[EnginePool]:
    """Two engines, each of which may be restarted once. The tests below use it in turn."""
    config = engines_config.model_copy(update={"num_engines": 2, "max_restarts": 1, "progress_timeout_s": STILL_S})
    with EnginePool(config, 0, tied_policies[0], name="test") as pool:
        pool.tell(events.note)
        pool.wait_until_serving()
        yield pool


def send(number: signal.Signals, actor_name: str) -> int:
    """Sends a signal to an engine's process; its id."""
    asked = ray.get_actor(actor_name).__ray_call__.options(concurrency_group="watch")  # beside what it works on
    process_id = ray.get(asked.remote(lambda actor: os.getpid()))
    os.kill(process_id, number)
    return process_id


def written(pool: EnginePool, disturb: Callable[[], None] = lambda: None) -> list[tuple[str, list[Completion]]]:
    """What the pool writes; the disturbance comes once its first block is there."""
    answers = pool.map(BLOCKS, SAMPLED)
    first = next(answer for answer in answers if answer)
    disturb()
    return [first, *(answer for answer in answers if answer)]


def states(pool: EnginePool) -> list[str]:
    return [engine.health.state for engine in pool.states]


def write_until(pool: EnginePool, wanted: list[str]) -> None:
    """Has the pool write until its engines are in the states that are wanted."""
    deadline = time.monotonic() + 120
    while states(pool) != wanted:
        assert time.monotonic() < deadline, states(pool)
        written(pool)


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
    pool: EnginePool, events: Events, tied_policies: tuple[Path, Path]
):
    of_first_version = written(pool)
    pool.broadcast(1, tied_policies[1])
    undisturbed = written(pool)
    assert undisturbed != of_first_version
    assert written(pool, lambda: send(signal.SIGKILL, "test-0#1")) == undisturbed
    write_until(pool, ["healthy", "healthy"])
    assert written(pool) == undisturbed
    assert [engine.version for engine in pool.states] == [1, 1]
    assert events == [("engine died", "test-0"), ("engine restarted", "test-0")]


def test_an_engine_that_is_stopped_in_its_work_is_found_and_replaced_and_its_blocks_are_written_by_others(
    pool: EnginePool, events: Events
):
    undisturbed = written(pool)
    events.clear()
    stopped: list[int] = []
    started = time.monotonic()
    assert written(pool, lambda: stopped.append(send(signal.SIGSTOP, "test-1#1"))) == undisturbed
    assert STILL_S <= time.monotonic() - started < 3 * STILL_S
    write_until(pool, ["healthy", "healthy"])
    assert not Path(f"/proc/{stopped[0]}").exists()
    assert events == [("engine died", "test-1"), ("engine restarted", "test-1")]
    assert written(pool) == undisturbed


def test_an_engine_that_dies_too_often_is_retired_and_the_others_do_its_work(pool: EnginePool, events: Events):
    undisturbed = written(pool)
    events.clear()
    assert written(pool, lambda: send(signal.SIGKILL, "test-0#2")) == undisturbed
    assert states(pool) == ["retired", "healthy"]
    assert events == [("engine died", "test-0"), ("engine retired", "test-0")]
    assert written(pool) == undisturbed


def test_with_fewer_engines_left_than_are_required_the_pool_says_what_became_of_each(pool: EnginePool):
    send(signal.SIGKILL, "test-1#2")
    with pytest.raises(
        RunFailed, match=r"^0 of 2 engines are left, and 1 must be: test-0 is retired \(death 2: process "
    ) as error:
        written(pool)
    assert re.search(
        r"test-1 is retired \(death 2: process died, .*\(in work: block-0, .*engines\.max_restarts", str(error.value)
    )


def test_engines_of_adapters_take_the_next_one_and_a_replacement_takes_the_current_one(
    ray_cluster: None,
    adapter_policies: tuple[Path, Path],
    engines_config: EnginesConfig,
):
    with EnginePool(engines_config, 1, adapter_policies[0], name="lora", max_lora_rank=4) as pool:
        with_first = written(pool)
        pool.broadcast(2, adapter_policies[1])
        with_second = written(pool)
        send(signal.SIGKILL, "lora-0#1")
        assert written(pool) == with_second
        assert with_first != with_second
        assert [engine.health.num_restarts for engine in pool.states] == [1]


def test_a_policy_that_was_damaged_since_it_was_published_is_refused_and_the_one_before_is_served(
    ray_cluster: None, tied_policies: tuple[Path, Path], engines_config: EnginesConfig, tmp_path: Path
):
    damaged = PolicyStore(tmp_path).publish(1, tied_policies[1], parent=None, metrics={}).path
    weights = damaged / "model.safetensors"
    contents = bytearray(weights.read_bytes())
    contents[-1] ^= 1
    weights.unlink()  # it may be a link to what was published
    weights.write_bytes(contents)
    with EnginePool(engines_config, 0, tied_policies[0], name="damaged") as pool:
        of_first_version = written(pool)
        for _ in range(2):
            with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
                pool.broadcast(1, damaged)
            assert not pool.serves(1, damaged)
        assert written(pool) == of_first_version


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
