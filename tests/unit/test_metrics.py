"""The figures that a run tells live: which there are, and what phases and training steps come to in them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SmallRun, small_config

from medcritical_ray.engines.fleet import EngineState, fleet_readings
from medcritical_ray.engines.health import Health
from medcritical_ray.self_play import self_play
from medcritical_ray.stage_one import stage_one
from medcritical_ray.telling.audience import Audience, Dispensable, Listener
from medcritical_ray.telling.metrics import METRICS, TOKENS, Reading
from medcritical_ray.telling.readings import past_readings, phase_readings, step_readings, tracked


class Notes(Listener):
    """Keeps the readings of phases and steps."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.phases: list[tuple[int, str]] = []

    def start_phase(self, iteration: int, phase: str) -> None:
        self.phases.append((iteration, phase))

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        self.readings += phase_readings(iteration, phase, result)

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self.readings += step_readings(iteration, phase, metrics)


class Broken(Listener):
    def __init__(self) -> None:
        self.num_told = 0

    def start_phase(self, iteration: int, phase: str) -> None:
        self.num_told += 1
        raise ConnectionError("nobody answers")


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def played(run: SmallRun, *listeners: Listener) -> None:
    game = replace(run.open(), progress=Audience(*listeners))
    with game.run:
        self_play(game, stage_one(game))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRun, Notes]:
    run, notes = SmallRun(tmp_path_factory.mktemp("told"), small_config()), Notes()
    played(run, notes)
    return run, notes


def values(readings: Iterable[Reading]) -> dict[tuple[str, ...], float]:
    """(metric, the values of its tags but for the phase's) -> value."""
    own = [[value for key, value in each.tags.items() if key not in ("iteration", "phase")] for each in readings]
    return {(each.name, *tags): each.value for each, tags in zip(readings, own, strict=True)}


def test_a_counter_is_exported_with_the_ending_of_counters():
    assert TOKENS.exported_name == "ray_medcritical_tokens_total"
    assert METRICS["medcritical_pairs"].exported_name == "ray_medcritical_pairs"


def test_every_metric_has_the_prefix_the_run_and_a_sentence_that_explains_it():
    for name, metric in METRICS.items():
        assert name.startswith("medcritical_")
        assert metric.tag_keys[0] == "run"
        assert metric.help.endswith(".")


def test_attempts_are_told_by_outcome_those_that_nobody_made_not_at_all():
    result = {"num_trajectories": 3, "solve_right": 2, "solve_unreadable": 1, "num_tokens": 90, "seconds": 1.5}
    readings = phase_readings(2, "generate", result)
    assert {(each.tags["iteration"], each.tags["phase"]) for each in readings} == {("2", "generate")}
    assert values(readings) == {
        ("medcritical_phase_seconds",): 1.5,
        ("medcritical_phase_tokens",): 90,
        ("medcritical_trajectories", "solve", "right"): 2,
        ("medcritical_trajectories", "solve", "wrong"): 0,
        ("medcritical_trajectories", "solve", "unreadable"): 1,
    }


def test_pairs_are_told_by_source_and_drops_by_reason():
    result = {"pairs": {"own": 5}, "earlier_pairs": 2, "candidates": {"own": 9}, "dropped": {"own: too long": 4}}
    assert values(phase_readings(1, "pair", result)) == {
        ("medcritical_pairs", "own"): 5,
        ("medcritical_pairs", "earlier"): 2,
        ("medcritical_dropped", "own: too long"): 4,
    }


def test_an_evaluation_tells_accuracy_with_its_interval_and_of_the_corrector_what_was_measured():
    share = {"k": 1, "n": 2, "value": 0.5, "low": 0.1, "high": 0.9}
    nothing = {"k": 0, "n": 0, "value": 0.0, "low": 0.0, "high": 1.0}
    result = {"dev": {"accuracy": share, "wrong_to_right": share, "right_to_wrong": nothing, "num_questions": 2}}
    assert values(phase_readings(1, "evaluate", result)) == {
        ("medcritical_accuracy_ratio", "dev"): 0.5,
        ("medcritical_accuracy_low_ratio", "dev"): 0.1,
        ("medcritical_accuracy_high_ratio", "dev"): 0.9,
        ("medcritical_repaired_ratio", "dev"): 0.5,
    }


def test_a_training_tells_its_held_out_pairs_before_and_after_if_there_are_any():
    figures = {"loss": 0.69, "margin": 0.0, "chosen_logp": -9.0, "rejected_logp": -8.0, "accuracy": 0.5}
    result = {"num_pairs": 40, "num_tokens": 900, "held_out": {"before": figures, "after": None}}
    assert values(phase_readings(1, "train", result)) == {
        ("medcritical_phase_tokens",): 900,
        ("medcritical_held_out_loss", "before"): 0.69,
        ("medcritical_held_out_margin_nats", "before"): 0.0,
        ("medcritical_held_out_chosen_logprob_nats", "before"): -9.0,
        ("medcritical_held_out_preference_accuracy_ratio", "before"): 0.5,
    }


def test_a_step_of_dpo_tells_loss_margin_log_probabilities_and_learning_rate():
    metrics = {"step": 3.0, "num_steps": 30.0, "epoch": 0.0, "loss": 0.6, "margin": 0.2, "learning_rate": 1e-4}
    assert values(step_readings(1, "train", {**metrics, "chosen_logp": -12.5})) == {
        ("medcritical_training_step",): 3.0,
        ("medcritical_training_steps",): 30.0,
        ("medcritical_training_loss",): 0.6,
        ("medcritical_training_margin_nats",): 0.2,
        ("medcritical_training_learning_rate",): 1e-4,
        ("medcritical_training_chosen_logprob_nats",): -12.5,
    }


def test_an_engine_tells_what_it_was_handed_its_version_its_restarts_and_its_state_of_all_that_there_are():
    health = Health(state="suspect", num_deaths=1, has_served=True)
    state = EngineState(name="demo-0", version=3, health=health, num_requests=64)
    readings = list(fleet_readings("corrector", [state]))
    assert values(readings) == {
        ("medcritical_requests_in_flight", "demo-0", "corrector"): 64,
        ("medcritical_engine_policy_version", "demo-0"): 3,
        ("medcritical_engine_restarts", "demo-0"): 1,
        ("medcritical_engines", "demo-0", "absent"): 0.0,
        ("medcritical_engines", "demo-0", "restarting"): 0.0,
        ("medcritical_engines", "demo-0", "stale"): 0.0,
        ("medcritical_engines", "demo-0", "healthy"): 0.0,
        ("medcritical_engines", "demo-0", "suspect"): 1.0,
        ("medcritical_engines", "demo-0", "dead"): 0.0,
        ("medcritical_engines", "demo-0", "retired"): 0.0,
    }
    for each in readings:
        assert ("run", *each.tags) == METRICS[each.name].tag_keys


def test_all_that_a_run_tells_is_in_the_table_with_exactly_its_tags(finished: tuple[SmallRun, Notes]):
    readings = finished[1].readings
    assert len({each.name for each in readings}) >= 15
    for each in readings:
        assert ("run", *each.tags) == METRICS[each.name].tag_keys


def test_a_run_tells_each_iterations_accuracy_and_training(finished: tuple[SmallRun, Notes]):
    readings = finished[1].readings
    tested = [each.tags for each in readings if each.name == "medcritical_accuracy_ratio"]
    assert [(tags["iteration"], tags["phase"]) for tags in tested if tags["split"] == "test"] == [
        ("0", "evaluate_base"),
        ("0", "evaluate"),
        ("1", "evaluate"),
        ("2", "evaluate"),
    ]
    losses = [each.tags for each in readings if each.name == "medcritical_training_loss"]
    assert [(tags["iteration"], tags["phase"]) for tags in losses] == [
        ("0", "draft"),
        ("0", "train"),
        ("1", "train"),
        ("2", "train"),
    ]


def test_a_resumed_run_tells_again_what_its_earlier_processes_told(finished: tuple[SmallRun, Notes]):
    run, notes = finished
    told = [each for each in notes.readings if not each.name.startswith("medcritical_training_")]
    with run.open().run as directory:
        again = past_readings(directory, last_iteration=2)
    assert {each.name for each in again} == {each.name for each in told}
    assert sorted(map(str, again)) == sorted(map(str, told))


def test_whoever_fails_to_listen_is_an_event_of_the_run_and_told_no_more(tmp_path: Path):
    run, broken, notes = SmallRun(tmp_path, small_config()), Broken(), Notes()
    with run.open().run as directory:
        audience = Audience(Dispensable(lambda: broken, "job page", directory), notes)
        audience.start_phase(1, "generate")
        audience.start_phase(1, "correct")
        events = [event for event in directory.events() if event["event"] == "listener failed"]
    assert broken.num_told == 1
    assert notes.phases == [(1, "generate"), (1, "correct")]
    assert [(event["listener"], event["cause"]) for event in events] == [
        ("job page", "ConnectionError('nobody answers')")
    ]


def test_whoever_cannot_even_begin_to_listen_is_an_event_too(tmp_path: Path):
    def make() -> Broken:
        raise ValueError("a step that cannot be read")

    with SmallRun(tmp_path, small_config()).open().run as directory:
        Dispensable(make, "metrics", directory).start_phase(1, "generate")
        events = [event for event in directory.events() if event["event"] == "listener failed"]
    assert [(event["listener"], event["cause"]) for event in events] == [
        ("metrics", "ValueError('a step that cannot be read')")
    ]


def test_trackers_name_a_figure_by_its_phase_and_tags_without_what_they_refuse():
    result = {"pairs": {"own": 5}, "dropped": {"own: too long": 4}}
    assert tracked("pair", phase_readings(1, "pair", result)) == {"pair/pairs/own": 5, "pair/dropped/own too long": 4}
