"""The health of an engine: what each event makes of each state, and what no sequence of events can do."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines.health import STATES, Event, Failure, Health, overdue

FAILURES = get_args(Failure)
EVENTS = ("start", "confirmed", "late", "update", "progress", "quiet", "excused", "end", *FAILURES)
NEXT = {
    ("absent", "start"): "restarting",
    ("restarting", "confirmed"): "healthy",
    ("restarting", "late"): "absent",
    ("restarting", "end"): "absent",
    ("stale", "confirmed"): "healthy",
    ("stale", "end"): "absent",
    ("healthy", "progress"): "healthy",
    ("healthy", "quiet"): "suspect",
    ("healthy", "excused"): "healthy",
    ("healthy", "update"): "stale",
    ("healthy", "end"): "absent",
    ("suspect", "progress"): "healthy",
    ("suspect", "excused"): "healthy",
    ("suspect", "update"): "stale",
    ("suspect", "end"): "absent",
    ("dead", "start"): "restarting",
} | {(state, failure): "dead" for state in ("restarting", "stale", "healthy", "suspect") for failure in FAILURES}
LIMITS = EnginesConfig(start_timeout_s=900, update_timeout_s=600, request_timeout_s=3600, progress_timeout_s=300)


def after(*events: Event, max_restarts: int = 3) -> Health:
    health = Health()
    for event in events:
        health = health.after(event, "", max_restarts=max_restarts)
    return health


@pytest.mark.parametrize("state", STATES)
def test_an_event_makes_of_a_state_what_the_table_says_and_others_do_not_come(state: str):
    for event in EVENTS:
        if (state, event) in NEXT:
            assert Health(state=state).after(event, max_restarts=3).state == NEXT[state, event]
        else:
            with pytest.raises(KeyError):
                Health(state=state).after(event, max_restarts=3)


def test_an_engine_is_restarted_as_often_as_it_may_be_and_retired_by_its_next_death():
    once = ("start", "confirmed", "process died")
    assert [after(*once * n, max_restarts=2).state for n in (1, 2, 3)] == ["dead", "dead", "retired"]
    assert [after(*once * n, max_restarts=2).num_restarts for n in (1, 2, 3)] == [0, 1, 2]
    assert after(*once, max_restarts=0).state == "retired"


def test_an_engine_that_gets_no_machine_has_not_died():
    assert after("start", "late", "start", "late") == Health()


def test_how_an_engine_died_is_told_until_it_serves_again():
    healthy = after("start", "confirmed")
    dead = healthy.after("no progress", "for 300 s", max_restarts=3)
    assert str(dead) == "dead (death 1: no progress, for 300 s)"
    assert str(dead.after("start", max_restarts=3)) == "restarting (death 1: no progress, for 300 s)"
    again = dead.after("start", max_restarts=3).after("confirmed", max_restarts=3)
    assert (str(again), again.num_deaths, again.has_served) == ("healthy", 1, True)


def test_an_engine_that_does_not_move_is_suspected_after_half_of_its_time_and_counts_as_dead_after_all_of_it():
    found = [overdue("healthy", unanswered_s=500, still_s=still_s, limits=LIMITS) for still_s in (149, 150, 299, 300)]
    dead = ("no progress", "for 300 s (engines.progress_timeout_s)")
    assert found == [None, ("quiet", ""), ("quiet", ""), dead]
    found = [overdue("suspect", unanswered_s=500, still_s=still_s, limits=LIMITS) for still_s in (150, 299, 300)]
    assert found == [None, None, dead]


def test_an_engine_that_moves_for_ever_and_answers_nothing_counts_as_dead_all_the_same():
    assert overdue("healthy", unanswered_s=3599, still_s=0, limits=LIMITS) is None
    assert overdue("healthy", unanswered_s=3600, still_s=0, limits=LIMITS) == (
        "no answer",
        "for 3600 s (engines.request_timeout_s)",
    )


def test_a_start_that_takes_too_long_is_late_and_an_update_that_does_is_no_answer():
    times = {"unanswered_s": 700, "still_s": 700, "limits": LIMITS}
    assert overdue("restarting", **times) is None
    assert overdue("stale", **times) == ("no answer", "for 600 s (engines.update_timeout_s)")
    assert overdue("restarting", unanswered_s=900, still_s=0, limits=LIMITS) == (
        "late",
        "for 900 s (engines.start_timeout_s)",
    )


@given(choices=st.lists(st.integers(min_value=0), max_size=60), max_restarts=st.integers(0, 4))
def test_whatever_happens_an_engine_serves_only_what_it_confirmed_and_dies_no_more_often_than_it_may(
    choices: list[int], max_restarts: int
):
    health, has_confirmed = Health(), False
    for choice in choices:
        events = [event for event in EVENTS if is_possible(health, event)]
        assert bool(events) == (health.state != "retired")
        if not events:
            break
        event = events[choice % len(events)]
        before, health = health, health.after(event, max_restarts=max_restarts)
        has_confirmed = event == "confirmed" or (has_confirmed and event in ("progress", "quiet", "excused"))
        assert health.is_serving == has_confirmed
        assert health.num_deaths - before.num_deaths == (event in FAILURES)
        assert (health.state == "retired") == (health.num_deaths == max_restarts + 1)


def is_possible(health: Health, event: Event) -> bool:
    try:
        health.after(event, max_restarts=1)
    except KeyError:
        return False
    return True
