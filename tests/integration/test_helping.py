"""Real engines of one role help those of the other: what is written is the same, whoever writes it and whoever dies."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from actors.pool import EnginePool
from actors.team import RayTeam
from medcritical_ray.config import Config, EnginesConfig, SamplingConfig
from medcritical_ray.game import WrittenBlock
from medcritical_ray.rollouts import Request

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SAMPLED = SamplingConfig(temperature=1.0, max_tokens=32)
BLOCKS = [(n, [Request(prompt=f" w{n} w{i}", seed=100 * n + i) for i in range(8)]) for n in range(12)]

SHORT = {"max_length_tokens": 128}


class Events(list[tuple[str, str]]):
    def note(self, event: str, **fields: str) -> None:
        self.append((event, fields.get("engine", "")))


@pytest.fixture(scope="module")
def events() -> Events:
    return Events()


@pytest.fixture(scope="module")
def team(
    ray_cluster: None, engines_config: EnginesConfig, tied_policies: tuple[Path, Path], events: Events
) -> Iterator[RayTeam]:
    """One engine for each role, both of which serve version 0."""
    engines = engines_config.model_copy(update={"separate_corrector": 1})
    turns = {"sampling": {"max_tokens": 32}}
    parts = {"engines": engines.model_dump(), "generate": turns, "correct": turns, "sft": SHORT, "dpo": SHORT}
    config = Config.model_validate({"run": {"name": "helped"}, **parts})
    with RayTeam(config, events.note) as team:
        for role in ("generator", "corrector"):
            team.serve(role, 0, tied_policies[0])
        yield team


def written(team: RayTeam, *, wants_help: bool, on_help: Callable[[], None] = lambda: None) -> list[WrittenBlock]:
    """What the generator writes; `on_help` is called as often as the corrector's engines are seen to help."""
    answers = []
    for answer in team.write("generator", 0, BLOCKS, SAMPLED, wants_help=lambda: wants_help):
        if not team.is_free("corrector"):
            on_help()
        answers += [answer] if answer else []
    return answers


def kill(actor_name: str) -> None:
    asked = ray.get_actor(actor_name).__ray_call__.options(concurrency_group="watch")  # beside what it works on
    os.kill(ray.get(asked.remote(lambda _: os.getpid())), signal.SIGKILL)


def test_what_engines_of_both_roles_write_is_the_same_though_one_that_helps_dies(team: RayTeam, events: Events):
    helped: list[bool] = []

    def kill_once() -> None:
        if not helped:
            kill("medcritical/helped/corrector-0#1")
        helped.append(True)

    alone = written(team, wants_help=False)
    assert [block for block, _ in alone] == list(range(12))
    assert written(team, wants_help=True, on_help=kill_once) == alone
    assert helped
    assert ("engine died", "medcritical/helped/corrector-0") in events
    assert team.is_free("corrector")


def test_engines_that_are_not_wanted_or_serve_another_policy_do_not_help(
    team: RayTeam, tied_policies: tuple[Path, Path]
):
    def fail() -> None:
        pytest.fail("the corrector's engine helped")

    written(team, wants_help=False, on_help=fail)
    team.serve("corrector", 0, tied_policies[1])
    written(team, wants_help=True, on_help=fail)


def test_no_engine_starts_to_help(ray_cluster: None, engines_config: EnginesConfig, tied_policies: tuple[Path, Path]):
    come_and_go = engines_config.model_copy(update={"min_engines": 0})
    with (
        EnginePool(come_and_go, 0, tied_policies[0], name="comes") as pool,
        EnginePool(come_and_go, 0, tied_policies[0], name="stays-away") as other,
    ):
        for _ in pool.map(BLOCKS, SAMPLED, helper=lambda: other):
            assert not other.is_at_work
        assert [engine.health.state for engine in other.states] == ["absent"]
