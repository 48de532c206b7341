"""What is decided and told of the engines of a pool."""

from typing import Any

from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines.fleet import (
    EngineState,
    is_misconfigured,
    note_news,
    num_engines_wanted,
    num_left,
    num_started,
    told,
)
from medcritical_ray.engines.health import Health

HEALTHY = Health(state="healthy", has_served=True)
DEAD = Health(state="dead", num_deaths=1, has_served=True, failure="process died", cause="it was killed")
RETIRED = Health(state="retired", num_deaths=4, has_served=True, failure="no progress", cause="for 300 s")


def state(health: Health, version: int = 3) -> EngineState:
    return EngineState(name="demo-0", version=version, health=health, num_requests=64)


def noted(before: Health, now: Health) -> list[tuple[str, dict[str, Any]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    note_news(state(before), state(now), lambda event, **fields: events.append((event, fields)))
    return events


def test_as_many_engines_are_wanted_as_the_blocks_keep_busy_within_the_bounds():
    wanted = [num_engines_wanted(blocks, per_engine=2, least=1, most=4) for blocks in (0, 1, 2, 3, 7, 8, 100)]
    assert wanted == [1, 1, 1, 2, 4, 4, 4]


def test_no_engine_is_wanted_without_work_where_none_must_stay():
    assert num_engines_wanted(0, per_engine=2, least=0, most=4) == 0


def test_between_phases_all_engines_of_a_pool_stay_or_as_many_as_the_config_says():
    assert EnginesConfig(num_engines=1, separate_corrector=4).least_of(4) == 4
    few = EnginesConfig(num_engines=8, min_engines=2, separate_corrector=1)
    assert [few.least_of(num) for num in (8, 1)] == [2, 1]


def test_all_but_the_retired_are_left():
    assert num_left([HEALTHY, DEAD, RETIRED, Health()]) == 3


def test_an_engine_counts_as_started_until_it_is_lost_whatever_version_it_has_yet_to_take():
    states = ("absent", "restarting", "stale", "healthy", "suspect", "dead", "retired")
    assert [num_started([Health(state=state)]) for state in states] == [0, 0, 1, 1, 1, 0, 0]


def test_a_start_that_fails_before_any_engine_served_is_the_fault_of_the_settings():
    failed = Health(state="dead", num_deaths=1, failure="start failed", cause="RuntimeError: no such kernel")
    assert is_misconfigured([failed, Health(state="restarting")])
    assert not is_misconfigured([failed, HEALTHY])
    assert not is_misconfigured([Health(state="dead", num_deaths=1, failure="process died"), Health()])


def test_every_engine_is_told_with_how_it_died():
    engines = [state(RETIRED), EngineState(name="demo-1", version=3, health=HEALTHY, num_requests=0)]
    assert told(engines) == "demo-0 is retired (death 4: no progress, for 300 s); demo-1 is healthy"


def test_a_death_is_noted_with_its_cause_and_the_last_one_as_a_retirement_too():
    assert noted(HEALTHY, DEAD) == [
        ("engine died", {"engine": "demo-0", "version": 3, "deaths": 1, "cause": "process died, it was killed"})
    ]
    assert noted(Health(state="healthy", num_deaths=3, has_served=True), RETIRED) == [
        ("engine died", {"engine": "demo-0", "version": 3, "deaths": 4, "cause": "no progress, for 300 s"}),
        ("engine retired", {"engine": "demo-0", "version": 3, "deaths": 4}),
    ]


def test_a_restart_is_noted_once_the_engine_serves_again_and_nothing_else_is():
    restarting = DEAD.after("start", max_restarts=3)
    again = restarting.after("confirmed", max_restarts=3)
    assert noted(DEAD, restarting) == []
    assert noted(restarting, again) == [("engine restarted", {"engine": "demo-0", "version": 3, "deaths": 1})]
    assert noted(again, again.after("quiet", max_restarts=3)) == []
    assert noted(Health(state="restarting"), HEALTHY) == []
