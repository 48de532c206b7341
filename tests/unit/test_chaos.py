"""The decisions of `medcritical chaos`: whom a seed has killed and when, when a run has recovered, and what it lost."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import SmallRun, small_config

from medcritical_ray.chaos.comparison import Comparison, compare_runs
from medcritical_ray.chaos.outcome import Outcome, figures, nothing_was_lost
from medcritical_ray.chaos.schedule import Kill, Phase, is_due, schedule
from medcritical_ray.chaos.sighting import Sighting, Strike, has_recovered
from medcritical_ray.chaos.undisturbed import identity, phases_of
from medcritical_ray.files import sha256_of
from medcritical_ray.records import PreferencePair, Trajectory
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import COMPLETE, MANIFEST
from medcritical_ray.run.tables import read_part, write_part
from medcritical_ray.self_play import self_play
from medcritical_ray.stage_one import stage_one

TARGETS = ["driver", "engine", "node", "train_worker"]
PHASES = [
    Phase(iteration=0, name="teach", seconds=1.0),
    Phase(iteration=0, name="draft", seconds=10.0),
    Phase(iteration=1, name="generate", seconds=20.0),
    Phase(iteration=1, name="train", seconds=10.0),
]
ENGINE_KILL = Kill(target="engine", signal="SIGKILL", position=2, share=0.5, draw=0.0)


def test_eight_kills_are_of_every_kind_and_four_of_every_target():
    kills = schedule(1, TARGETS, PHASES, 8)
    assert Counter((kill.target, kill.signal) for kill in kills) == {
        (target, signal): 1 for target in TARGETS for signal in ("SIGKILL", "SIGSTOP")
    }
    assert Counter(kill.target for kill in schedule(1, TARGETS, PHASES, 4)) == dict.fromkeys(TARGETS, 1)
    assert Counter(kill.target for kill in schedule(1, TARGETS, PHASES, 20)) == dict.fromkeys(TARGETS, 5)


def test_the_same_seed_gives_the_same_kills_and_another_one_others():
    assert schedule(1, TARGETS, PHASES, 8) == schedule(1, TARGETS, PHASES, 8)
    assert schedule(1, TARGETS, PHASES, 8) != schedule(2, TARGETS, PHASES, 8)


def test_kills_come_in_the_order_of_their_moments_and_in_every_phase():
    kills = schedule(3, TARGETS, PHASES, 40)
    moments = [(kill.position, kill.share) for kill in kills]
    assert moments == sorted(moments)
    assert {kill.position for kill in kills} == {0, 1, 2, 3}


def test_training_workers_are_killed_where_there_are_some():
    kills = schedule(3, TARGETS, PHASES, 40)
    assert {kill.position for kill in kills if kill.target == "train_worker"} == {1, 3}


@pytest.mark.parametrize(
    ("position", "seconds", "due"), [(1, 99.0, False), (2, 9.9, False), (2, 10.0, True), (3, 0.0, True)]
)
def test_a_kill_is_due_at_its_share_of_the_phase_and_ever_after(position: int, seconds: float, due: bool):
    assert is_due(ENGINE_KILL, PHASES, position, seconds) == due


def test_the_draw_picks_one_of_those_who_are_there():
    last = replace(ENGINE_KILL, draw=0.99)
    assert [ENGINE_KILL.pick("abc"), last.pick("abc"), last.pick("a")] == ["a", "c", "a"]


BEFORE = Sighting(
    time=100.0,
    working={
        "driver": {"1": 5.0},
        "engine": {"11": 20.0, "12": 21.0},
        "train_worker": {"21": 95.0},
        "node": {"a": 1.0},
    },
    present={"1", "11", "12", "21", "a"},
    position=3,
    phase_seconds=4.0,
    wrote_at=99.0,
    is_finished=False,
)


def seen(target: str, working: dict[str, float], *also_present: str, wrote_at: float) -> Sighting:
    """As before, ten seconds later, but for those of the target."""
    others = set(BEFORE.present) - set(BEFORE.working[target])
    return replace(
        BEFORE,
        time=110.0,
        working={**BEFORE.working, target: working},
        present={*others, *working, *also_present},
        wrote_at=wrote_at,
    )


def strike(target: str, victim: str) -> Strike:
    return Strike(kill=replace(ENGINE_KILL, target=target), victim=victim, before=BEFORE)


def test_an_engine_is_replaced_once_the_new_one_serves_and_rows_came_since():
    killed = strike("engine", "11")
    assert not has_recovered(killed, seen("engine", {"12": 21.0}, "13", wrote_at=109.0))
    assert not has_recovered(killed, seen("engine", {"12": 21.0, "13": 108.0}, wrote_at=107.0))
    assert has_recovered(killed, seen("engine", {"12": 21.0, "13": 108.0}, wrote_at=109.0))


def test_whoever_is_stopped_must_be_gone():
    working = {"11": 20.0, "12": 21.0, "13": 108.0}
    assert not has_recovered(strike("engine", "11"), seen("engine", working, wrote_at=109.0))


def test_an_engine_that_had_not_started_is_replaced_by_one_that_has():
    killed = strike("engine", "13")
    assert not has_recovered(killed, seen("engine", {"11": 20.0, "12": 21.0}, wrote_at=109.0))
    assert has_recovered(killed, seen("engine", {"11": 20.0, "12": 21.0, "14": 108.0}, wrote_at=109.0))


def test_a_driver_is_back_once_it_has_something_written():
    killed = strike("driver", "1")
    assert not has_recovered(killed, seen("driver", {}, wrote_at=99.0))
    assert not has_recovered(killed, seen("driver", {"2": 105.0}, wrote_at=99.0))
    assert has_recovered(killed, seen("driver", {"2": 105.0}, wrote_at=106.0))


def test_as_many_nodes_as_before_and_work_going_on():
    killed = strike("node", "a")
    assert not has_recovered(killed, seen("node", {}, "b", wrote_at=109.0))
    assert has_recovered(killed, seen("node", {"b": 105.0}, wrote_at=106.0))


def test_a_training_that_has_ended_and_a_run_that_is_finished_need_nobody():
    gone = seen("train_worker", {}, wrote_at=99.0)
    assert not has_recovered(strike("train_worker", "21"), gone)
    assert has_recovered(strike("train_worker", "21"), replace(gone, position=4))
    assert not has_recovered(strike("driver", "1"), replace(seen("driver", {}, wrote_at=99.0), position=4))
    assert has_recovered(strike("driver", "1"), replace(seen("driver", {}, wrote_at=99.0), is_finished=True))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    small = SmallRun(tmp_path_factory.mktemp("undisturbed"), small_config())
    game = small.open()
    with game.run:
        self_play(game, stage_one(game))
    return RunDirectory(small.path)


@pytest.fixture
def other(undisturbed: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy, to be spoilt."""
    shutil.copytree(undisturbed.path, tmp_path / "other")
    return RunDirectory(tmp_path / "other")


def test_the_same_run_has_lost_nothing(undisturbed: RunDirectory, other: RunDirectory):
    found = compare_runs(undisturbed, other)
    assert found == Comparison(num_expected=found.num_expected, num_lost=0, num_doubled=0, num_changed=0, broken=())
    assert found.num_expected > 300


def parts(run: RunDirectory, name: str) -> Path:
    return run.path / "iterations" / name / "part-00000.parquet"


def rewrite(run: RunDirectory, name: str, record_type: type, change: Callable[[list], list]) -> None:
    path = parts(run, name)
    write_part(path.parent, 0, change(read_part(path, record_type)), record_type)


ATTEMPTS, CORRECTIONS, PAIRS = (
    ("001/attempts", Trajectory),
    ("002/corrections", Trajectory),
    ("001/pairs", PreferencePair),
)
ANSWERS = ("002/evaluation/test/answers", Trajectory)


@pytest.mark.parametrize(
    ("table", "change", "lost", "doubled", "changed"),
    [
        (ATTEMPTS, lambda rows: rows[1:], 1, 0, 0),
        (CORRECTIONS, lambda rows: rows[2:], 2, 0, 0),
        (ATTEMPTS, lambda rows: [*rows, rows[0]], 0, 1, 0),
        (ANSWERS, lambda rows: [rows[0], *rows[:-1]], 1, 1, 0),
        (ANSWERS, lambda rows: [replace(rows[0], output="otherwise"), *rows[1:]], 0, 0, 1),
        (PAIRS, lambda rows: rows[:-1], 1, 0, 0),
        (PAIRS, lambda rows: [*rows, rows[0], rows[0]], 0, 2, 0),
        (PAIRS, lambda rows: [replace(rows[0], chosen=rows[0].rejected), *rows[1:]], 0, 0, 1),
        (PAIRS, lambda rows: [replace(rows[0], question_id="nobody's"), *rows[1:]], 1, 1, 0),
    ],
)
def test_what_was_lost_doubled_or_changed_is_counted(
    undisturbed: RunDirectory,
    other: RunDirectory,
    table: tuple[str, type],
    change: Callable[[list], list],
    lost: int,
    doubled: int,
    changed: int,
):
    rewrite(other, *table, change)
    found = compare_runs(undisturbed, other)
    assert (found.num_lost, found.num_doubled, found.num_changed) == (lost, doubled, changed)


def test_the_rows_of_a_file_that_is_missing_or_torn_are_lost(undisturbed: RunDirectory, other: RunDirectory):
    missing, torn = parts(other, "001/attempts"), parts(other, "002/attempts")
    num_rows = len(read_part(missing, Trajectory)) + len(read_part(torn, Trajectory))
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:-20])
    assert compare_runs(undisturbed, other).num_lost == num_rows


def test_a_step_that_was_told_twice_is_doubled(undisturbed: RunDirectory, other: RunDirectory):
    other.append_step(1, "train", other.steps(1, "train")[0])
    assert compare_runs(undisturbed, other).num_doubled == 1


def break_parent(run: RunDirectory) -> None:
    manifest = run.policies / "v0002" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"parent": 0}))


def break_weights(run: RunDirectory) -> None:
    (run.policies / "v0001" / "model.safetensors").write_bytes(b"torn")


def forget_version(run: RunDirectory) -> None:
    (run.policies / "v0002" / COMPLETE).unlink()


def adopt_another(run: RunDirectory) -> None:
    run.finish_iteration(2, {"adopted_version": 1})


def forget_iteration(run: RunDirectory) -> None:
    (run.iteration(2) / "DONE").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (break_parent, "the parent of version 2 is 0, not 1"),
        (break_weights, "model.safetensors is damaged: its SHA-256 is not that of the manifest"),
        (forget_version, "the versions are [0, 1], not [0, 1, 2]"),
        (adopt_another, "iteration 2 adopted version 1, not 2"),
        (forget_iteration, "iteration 2 is not finished"),
    ],
)
def test_a_broken_chain_of_policies_is_found(
    undisturbed: RunDirectory, other: RunDirectory, spoil: Callable[[RunDirectory], None], told: str
):
    spoil(other)
    (fault,) = compare_runs(undisturbed, other).broken
    assert fault.endswith(told)


def test_other_weights_than_in_the_undisturbed_run_are_found(undisturbed: RunDirectory, other: RunDirectory):
    manifest = other.policies / "v0001" / MANIFEST
    weights = other.policies / "v0001" / "model.safetensors"
    content = json.loads(manifest.read_text())
    weights.write_bytes(weights.read_bytes() + b" ")
    content["files"]["model.safetensors"] = sha256_of(weights)
    manifest.write_text(json.dumps(content))
    assert compare_runs(undisturbed, other).broken == ("version 1 has other weights",)


def test_phases_come_in_their_order_with_their_seconds(undisturbed: RunDirectory):
    phases = phases_of(undisturbed)
    assert [(phase.iteration, phase.name) for phase in phases[:3]] == [
        (0, "evaluate_base"),
        (0, "teach"),
        (0, "draft"),
    ]
    assert len(phases) == 9 + 7 + 7
    assert all(phase.seconds > 0 for phase in phases)


def test_an_undisturbed_run_is_another_with_another_config(undisturbed: RunDirectory):
    record = undisturbed.record()
    changed = record.model_copy(update={"config": {**record.config, "dpo": {}}})
    assert identity(record) == identity(record)
    assert identity(record) != identity(changed)


def outcome(target: str, phase: str, recovery_seconds: float | None) -> Outcome:
    return Outcome(
        run="seed-0",
        time=1.0,
        target=target,
        signal="SIGSTOP",
        iteration=1,
        phase=phase,
        recovery_seconds=recovery_seconds,
    )


WHOLE = Comparison(num_expected=500, num_lost=0, num_doubled=0, num_changed=0, broken=())


def test_figures_are_those_of_all_runs_together():
    outcomes = [
        outcome("engine", "generate", 10.0),
        outcome("engine", "train", 40.0),
        outcome("engine", "train", 20.0),
        outcome("driver", "pair", None),
    ]
    told = figures(
        outcomes, [WHOLE, replace(WHOLE, num_lost=2, num_doubled=3, broken=("iteration 2 is not finished",))]
    )
    assert len(told.pop("sent")) == 4
    assert told == {
        "kills": 4,
        "survived": 3,
        "rows_expected": 1000,
        "rows_lost": 2,
        "rows_doubled": 3,
        "rows_changed": 0,
        "broken": ["iteration 2 is not finished"],
        "recovery_seconds": {"engine": 20.0},
        "longest_recovery_seconds": {"engine": 40.0},
        "by_target_and_phase": {
            "engine": {"generate": {"kills": 1, "survived": 1}, "train": {"kills": 2, "survived": 2}},
            "driver": {"pair": {"kills": 1, "survived": 0}},
        },
    }


def test_a_comparison_says_what_it_found_in_one_line():
    found = replace(WHOLE, num_lost=2, broken=("version 1 has other weights",))
    assert found.text == "of 500 rows 2 lost, 0 doubled, 0 changed; version 1 has other weights"


@pytest.mark.parametrize(
    ("recovery_seconds", "comparison", "whole"),
    [
        (1.0, WHOLE, True),
        (None, WHOLE, False),
        (1.0, replace(WHOLE, num_lost=1), False),
        (1.0, replace(WHOLE, num_doubled=1), False),
        (1.0, replace(WHOLE, num_changed=1), False),
        (1.0, replace(WHOLE, broken=("version 1 has other weights",)), False),
    ],
)
def test_nothing_was_lost_if_every_kill_was_survived_and_every_run_is_whole(
    recovery_seconds: float | None, comparison: Comparison, whole: bool
):
    assert nothing_was_lost(figures([outcome("node", "train", recovery_seconds)], [WHOLE, comparison])) == whole
