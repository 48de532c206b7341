"""The whole game, stage 1 and self-iterations, on clinic questions with a team that needs no engines."""

import errno
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from fakes import RESUME_COMMAND, SKILLS, TOKENS_OF_VERSION, FakeTeam, SmallRun, small_config

from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.corrections import format_keep
from medcritical_ray.errors import Diverged, RunFailed, Stopped, UserError
from medcritical_ray.game import TEACHER_VERSION, Game, OnStep, Role
from medcritical_ray.phases import PHASES
from medcritical_ray.records import Demonstration, PreferencePair, Trajectory, UnkeyedQuestion
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.iterations import read_iterations
from medcritical_ray.run.policies import Policy, PolicyStore
from medcritical_ray.run.tables import iter_parts
from medcritical_ray.seeds import derive_seed
from medcritical_ray.self_play import TOO_FEW_PAIRS, attempts_by, corrections_by, self_play
from medcritical_ray.stage_one import stage_one
from medcritical_ray.summary import summarise
from medcritical_ray.teaching.reviews import Submission, Written
from medcritical_ray.trace import answer_of

STAGE_ONE_PHASES = [
    "evaluate_base",
    "teach",
    "draft",
    "generate",
    "correct",
    "train",
    "publish",
    "broadcast",
    "evaluate",
]
SELF_ITERATION_PHASES = ["generate", "correct", "pair", "train", "publish", "broadcast", "evaluate"]
ALL_PHASES = [
    *((0, phase) for phase in STAGE_ONE_PHASES),
    *((1, phase) for phase in SELF_ITERATION_PHASES),
    *((2, phase) for phase in SELF_ITERATION_PHASES),
]

APART = {"separate_corrector": 1}
"""Engines of which one is the corrector's own."""


def play_all(game: Game) -> Policy:
    with game.run:
        return self_play(game, stage_one(game))


def rows_of(run: SmallRun) -> dict[str, list[dict[str, Any]]]:
    """Every row of every parquet file of a run, by the file's path."""
    files = sorted(run.path.rglob("*.parquet"))
    return {str(file.relative_to(run.path)): pq.read_table(file).to_pylist() for file in files}


def trajectories(run: SmallRun, directory: str) -> list[Trajectory]:
    return list(iter_parts(run.path / "iterations" / directory, Trajectory))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRun, Game]:
    """A run that nothing interrupted."""
    run = SmallRun(tmp_path_factory.mktemp("finished"), small_config())
    game = run.open()
    assert play_all(game).version == 2
    return run, game


def test_the_phases_come_in_the_methods_order(finished: tuple[SmallRun, Game]):
    assert finished[1].progress.phases == ALL_PHASES


def test_every_question_is_attempted_by_its_key_once_and_none_is_missing(finished: tuple[SmallRun, Game]):
    run, game = finished
    for iteration, first in ((1, 6), (2, 14)):
        asked = [question.id for question in game.train.window(first, 8)]
        attempts = trajectories(run, f"{iteration:03d}/attempts")
        assert [(t.iteration, t.question_id, t.task, t.attempt, t.sample) for t in attempts] == [
            (iteration, question_id, "solve", number, 0) for question_id in asked for number in (0, 1)
        ]


def test_every_wrong_attempt_is_repaired_three_times_and_no_correction_has_the_key_of_another(
    finished: tuple[SmallRun, Game],
):
    for iteration in ("001", "002"):
        attempts = trajectories(finished[0], f"{iteration}/attempts")
        corrections = trajectories(finished[0], f"{iteration}/corrections")
        keys = [(t.question_id, t.task, t.attempt, t.sample) for t in corrections]
        assert len(set(keys)) == len(keys)
        repaired = Counter((t.question_id, t.attempt) for t in corrections if t.task == "repair")
        assert repaired == {(t.question_id, t.attempt): 3 for t in attempts if t.answer and not t.correct}
        checked = {(t.question_id, t.attempt) for t in corrections if t.task == "check"}
        assert checked < {(t.question_id, t.attempt) for t in attempts if t.correct}


@pytest.mark.parametrize(
    ("directory", "version"),
    [
        ("000/evaluation_base/test/answers", -2),
        ("000/attempts", -1),
        ("000/evaluation/dev/answers", 0),
        ("000/evaluation/test/samples", 0),
        ("001/attempts", 0),
        ("001/corrections", 0),
        ("001/evaluation/dev/corrections", 1),
        ("002/attempts", 1),
        ("002/corrections", 1),
        ("002/evaluation/test/answers", 2),
    ],
)
def test_every_trajectory_carries_the_version_that_wrote_it(
    finished: tuple[SmallRun, Game], directory: str, version: int
):
    written = trajectories(finished[0], directory)
    assert {(t.version, t.num_tokens) for t in written} == {(version, TOKENS_OF_VERSION + version)}


def test_every_pair_names_the_versions_of_both_texts(finished: tuple[SmallRun, Game]):
    pairs = list(iter_parts(finished[0].path / "iterations/002/pairs", PreferencePair))
    assert {pair.source for pair in pairs} == {"correction", "own"}
    assert {(pair.iteration, pair.chosen_version, pair.rejected_version) for pair in pairs} == {(2, 1, 1)}


def test_one_version_per_stage_is_published_and_verifies(finished: tuple[SmallRun, Game]):
    store = PolicyStore(finished[0].path / "policies")
    assert store.versions() == [0, 1, 2]
    assert [store.get(version).manifest.parent for version in (0, 1, 2)] == [None, 0, 1]
    for version in (0, 1, 2):
        store.verify(version)


def test_each_dpo_starts_from_the_policy_that_played_and_takes_it_as_reference(finished: tuple[SmallRun, Game]):
    assert finished[1].team.trained == [("dpo-001", "v0000", "v0000"), ("dpo-002", "v0001", "v0001")]


def test_the_summary_says_what_scripts_are_promised(finished: tuple[SmallRun, Game]):
    run, game = finished
    summary = summarise(game, 2)
    accuracy = summary["accuracy"]
    assert list(accuracy) == ["base", "sft", "iterations", "final"]
    assert len(accuracy["iterations"]) == 2
    assert accuracy["final"] == accuracy["iterations"][1]
    right = [t.correct for t in trajectories(run, "002/evaluation/test/answers")]
    assert accuracy["final"] == sum(right) / 8
    assert summary["num_test"] == 8
    assert 0 < summary["p_value_final_vs_sft"] <= 1
    assert list(summary["seconds"]) == list(PHASES)
    assert [phase for phase in PHASES if phase in STAGE_ONE_PHASES] == STAGE_ONE_PHASES
    assert [phase for phase in PHASES if phase in SELF_ITERATION_PHASES] == SELF_ITERATION_PHASES
    assert summary["versions"]["published"] == [0, 1, 2]
    assert summary["versions"]["adopted"] == [1, 2]
    assert summary["versions"]["final"] == 2


def test_the_summary_counts_the_pairs_that_lie_on_disk(finished: tuple[SmallRun, Game]):
    run, game = finished
    for iteration, figures in enumerate(summarise(game, 2)["pairs"], 1):
        pairs = iter_parts(run.path / f"iterations/{iteration:03d}/pairs", PreferencePair)
        assert figures["made"] == Counter(pair.source for pair in pairs)
        assert figures["from_earlier_iterations"] == 0


def test_the_teachers_chosen_traces_are_right_line_by_line(finished: tuple[SmallRun, Game]):
    # The fake writes either what the teacher would or a mistake, and a blind guess at the answer changes no step.
    shares = summarise(finished[1], 2)["chosen_right_line_by_line"]
    assert [share["own"] for share in shares] == [1.0, 1.0]


def test_a_run_killed_at_the_start_of_every_phase_ends_with_the_same_rows(
    finished: tuple[SmallRun, Game], tmp_path: Path
):
    run = SmallRun(tmp_path, small_config())
    started = []
    for _ in ALL_PHASES:
        game = run.open(killed_at=2)
        with suppress(KeyboardInterrupt):
            play_all(game)
        started.append(game.progress.phases[0])
    assert started == ALL_PHASES
    assert rows_of(run) == rows_of(finished[0])


@pytest.mark.parametrize("engines", [{}, APART], ids=["together", "apart"])
def test_a_run_whose_team_dies_at_every_fourth_thing_it_does_ends_with_the_same_rows(
    engines: dict[str, Any], finished: tuple[SmallRun, Game], tmp_path: Path
):
    run = SmallRun(tmp_path, small_config(engines=engines))
    failures = []
    while not (run.path / "iterations/002/DONE").exists():
        try:
            play_all(run.open(fails_at=4))
        except RunFailed as error:
            failures.append(str(error))
    assert rows_of(run) == rows_of(finished[0])
    assert len(failures) > 20
    for failure in failures:
        where = r"(stage 1|iteration [12]), (evaluate_base|draft|generate|correct|train|broadcast|evaluate)"
        assert re.fullmatch(rf"{where}: the machine died; resume with: {RESUME_COMMAND}", failure)


def test_a_failure_names_the_phase_the_cause_and_the_command_that_resumes(tmp_path: Path):
    with pytest.raises(RunFailed) as caught:
        play_all(SmallRun(tmp_path, small_config()).open(fails_at=1))
    assert str(caught.value) == (
        "stage 1, evaluate_base: the machine died; resume with: medcritical self-play --config small.toml --resume"
    )


def test_a_finished_run_does_nothing_when_resumed(finished: tuple[SmallRun, Game]):
    game = finished[0].open(fails_at=1)
    assert play_all(game).version == 2
    assert game.progress.phases == []


def test_what_is_the_users_to_mend_says_where_and_how_to_go_on(finished: tuple[SmallRun, Game]):
    def work() -> dict[str, Any]:
        raise UserError("engines.max_model_len = 16: raise it")

    message = (
        rf"^iteration 3, generate: engines\.max_model_len = 16: raise it; resume with: {RESUME_COMMAND} \(or start"
    )
    with finished[0].open().run, pytest.raises(UserError, match=message):
        finished[1].once(3, "generate", work)


def test_a_phase_that_is_stopped_has_not_failed(tmp_path: Path):
    def stop() -> dict[str, Any]:
        raise Stopped("SIGTERM")

    game = SmallRun(tmp_path, small_config()).open()
    with pytest.raises(Stopped), game.run:
        game.once(1, "generate", stop)
    assert [event["event"] for event in game.run.events()] == ["run created"]


def test_a_full_disk_ends_a_phase_like_any_failure(finished: tuple[SmallRun, Game], monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDirectory, "append_event", full)
    message = rf"^iteration 3, pair: .*No space left on device; resume with: {RESUME_COMMAND}$"
    with pytest.raises(RunFailed, match=message):
        finished[1].once(3, "pair", dict)


def test_a_policy_worse_on_dev_is_recorded_and_not_adopted_and_the_old_one_goes_on(tmp_path: Path):
    run = SmallRun(tmp_path, small_config(), SKILLS | {"sft-train": 0.6, "dpo-001": 0.0})
    game = run.open()
    assert play_all(game).version == 2
    metrics = game.run.metrics(1)
    assert metrics["adopted_version"] == 0
    assert metrics["dev_comparison"]["gain"] < 0
    assert metrics["dev_comparison"]["p_value"] < 0.05
    assert game.team.trained == [("dpo-001", "v0000", "v0000"), ("dpo-002", "v0000", "v0000")]
    store = PolicyStore(run.path / "policies")
    assert [store.get(version).manifest.parent for version in (0, 1, 2)] == [None, 0, 0]
    assert {t.version for t in trajectories(run, "002/attempts")} == {0}
    summary = summarise(game, 2)
    assert summary["accuracy"]["iterations"][0] == 0
    assert summary["versions"]["adopted"] == [0, 2]


def test_a_policy_that_is_worse_by_chance_alone_is_adopted(tmp_path: Path):
    config = small_config(run={"num_iterations": 1}, evaluate={"accept_p_value": 0.0})
    game = SmallRun(tmp_path, config, SKILLS | {"sft-train": 0.6, "dpo-001": 0.0}).open()
    assert play_all(game).version == 1
    assert game.run.metrics(1)["dev_comparison"]["gain"] < 0


def test_an_iteration_with_too_few_pairs_trains_nothing_and_the_run_goes_on(tmp_path: Path):
    # A policy that is always right leaves nothing to correct.
    run = SmallRun(tmp_path, small_config(), SKILLS | {"sft-train": 1.0})
    game = run.open()
    assert play_all(game).version == 0
    for iteration in (1, 2):
        assert game.run.metrics(iteration)["reason"] == TOO_FEW_PAIRS
        assert game.run.metrics(iteration)["adopted_version"] == 0
        assert read_iterations(game.run, 2)[iteration].is_adopted is None
    assert game.team.trained == []
    assert PolicyStore(run.path / "policies").versions() == [0]
    summary = summarise(game, 0)
    assert summary["accuracy"] == {
        "base": summary["accuracy"]["base"],
        "sft": 1.0,
        "iterations": [None, None],
        "final": 1.0,
    }
    assert summary["p_value_final_vs_sft"] == 1.0


@pytest.fixture(scope="module")
def tied_to_stage_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRun, Game]:
    """A run whose corrector and whose DPO reference stay version 0."""
    config = small_config(correct={"policy": "initial"}, dpo={"reference": "initial"})
    run = SmallRun(tmp_path_factory.mktemp("tied"), config)
    game = run.open()
    play_all(game)
    return run, game


def test_an_initial_corrector_stays_version_0_while_the_generator_moves_on(tied_to_stage_one: tuple[SmallRun, Game]):
    run, game = tied_to_stage_one
    assert {t.version for t in trajectories(run, "002/attempts")} == {1}
    assert {t.version for t in trajectories(run, "002/corrections")} == {0}
    assert {t.version for t in trajectories(run, "002/evaluation/test/answers")} == {2}
    assert {t.version for t in trajectories(run, "002/evaluation/test/corrections")} == {0}
    assert {version for role, version in game.team.served if role == "corrector"} == {0}
    pairs = list(iter_parts(run.path / "iterations/002/pairs", PreferencePair))
    versions = {(pair.source, pair.chosen_version, pair.rejected_version) for pair in pairs}
    assert versions == {("correction", 0, 1), ("own", 1, 1)}


def test_a_corrector_of_its_own_begins_with_the_first_attempts_and_writes_the_same(tmp_path: Path):
    tied: dict[str, Any] = {"correct": {"policy": "initial"}, "questions": {"block_size": 2}}
    together = SmallRun(tmp_path / "together", small_config(**tied))
    apart = SmallRun(tmp_path / "apart", small_config(**tied, engines=APART))
    play_all(together.open())
    game = apart.open()
    play_all(game)
    assert rows_of(apart) == rows_of(together)
    num_in_evaluation = 3 * (8 + 4)  # answers, corrections and samples of the blocks of dev and test
    last_iteration = game.team.asked[:-num_in_evaluation][-8:]
    assert last_iteration == [(role, block) for block in range(4) for role in ("generator", "corrector")]
    dev = game.team.asked[-num_in_evaluation:][:16]
    assert dev == [(role, block) for block in range(8) for role in ("generator", "corrector")]


def test_the_corrector_s_engine_helps_with_attempts_before_it_corrects_and_is_helped_in_turn(tmp_path: Path):
    together = SmallRun(tmp_path / "together", small_config(questions={"block_size": 2}))
    apart = SmallRun(tmp_path / "apart", small_config(questions={"block_size": 2}, engines=APART))
    play_all(together.open())
    play_all(apart.open())
    assert rows_of(apart) == rows_of(together)
    for name in ("attempts", "corrections"):
        shutil.rmtree(apart.path / "iterations/002" / name)
    game, policy = apart.open(), PolicyStore(apart.path / "policies").get(1)
    attempts = attempts_by(game, 2, policy)
    corrections = corrections_by(game, 2, policy, attempts)
    with game.run:
        attempts.finish(beside=[corrections])
        # Once no attempt is left to help with, though the last is still being waited for.
        assert game.team.asked == [*(("generator", block) for block in range(4)), ("corrector", 0)]
        assert game.team.helped == ["generator"]
        corrections.finish()
    assert rows_of(apart) == rows_of(together)


def test_what_is_complete_is_read_and_no_engine_is_asked(tmp_path: Path):
    run = SmallRun(tmp_path, small_config(engines=APART))
    play_all(run.open())
    game, policy = run.open(), PolicyStore(run.path / "policies").get(1)
    attempts = attempts_by(game, 2, policy)
    corrections = corrections_by(game, 2, policy, attempts)
    with game.run:
        generated = attempts.finish(beside=[corrections])
        corrections.finish()
    assert generated["num_trajectories"] == len(trajectories(run, "002/attempts"))
    assert (game.team.served, game.team.asked) == ([], [])


class Keeper:
    """Remembers the files that there were when it was last told to keep a run."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.files: set[Path] = set()

    def push(self) -> None:
        self.files = set(self.run.path.rglob("*"))


def test_policies_are_in_the_store_before_engines_are_to_fetch_them_from_there(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    keeper = game.run._keeper = Keeper(game.run)
    serve, kept = game.team.serve, []

    def serve_if_kept(role: Role, version: int, policy_dir: Path) -> None:
        if policy_dir.is_relative_to(game.run.path):
            kept.append(set(policy_dir.iterdir()) <= keeper.files)
        serve(role, version, policy_dir)

    with patch.object(game.team, "serve", serve_if_kept):
        play_all(game)
    assert len(kept) > 10
    assert all(kept)


def test_an_initial_reference_is_the_policy_of_stage_1(tied_to_stage_one: tuple[SmallRun, Game]):
    assert tied_to_stage_one[1].team.trained == [("dpo-001", "v0000", "v0000"), ("dpo-002", "v0001", "v0000")]


def test_without_own_attempts_the_draft_becomes_version_0(tmp_path: Path):
    run = SmallRun(tmp_path, small_config(run={"num_iterations": 1}, sft={"own_attempts": 0}))
    game = run.open()
    play_all(game)
    assert [phase for iteration, phase in game.progress.phases if iteration == 0] == [
        "evaluate_base",
        "teach",
        "draft",
        "publish",
        "broadcast",
        "evaluate",
    ]
    assert (run.path / "policies/v0000/config.json").read_text() == '{"skill": 0.3}'


def test_the_teacher_may_correct_attempts_at_more_questions_than_it_solves(tmp_path: Path):
    run = SmallRun(tmp_path, small_config(teacher={"num_questions": 2, "num_corrected": 5}))
    game = run.open()
    play_all(game)
    train = [question.id for question in game.train]
    solved = [
        d.question_id for d in iter_parts(run.path / "iterations/000/teaching", Demonstration) if d.task == "solve"
    ]
    assert solved == train[:2]
    assert {t.question_id for t in trajectories(run, "000/attempts")} == set(train[:5])
    corrected = {d.question_id for d in iter_parts(run.path / "iterations/000/lessons", Demonstration)}
    assert corrected > set(train[:2])
    assert corrected <= set(train[:5])
    # Self-play begins with the questions that stage 1 has not used.
    assert {t.question_id for t in trajectories(run, "001/attempts")} == set(train[5:13])


class Reviewing(ClinicTeacher):
    """The clinic's teacher, who repairs every third attempt wrongly, gives away the key with every third, and says "the
    teacher died" when it is asked for the given time."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__(load_world())
        self._dies_at = dies_at
        self.reviewed: list[Submission] = []
        self.num_blocks = 0

    def corrections(self, submissions: Sequence[Submission], iteration: int) -> list[Written]:
        self.num_blocks += iteration > 0
        if iteration and self.num_blocks == self._dies_at:
            raise RuntimeError("the teacher died")
        if iteration:
            self.reviewed += submissions
        return super().corrections(submissions, iteration)

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        right = super().correction(question, attempt)
        kind = derive_seed(0, 0, question.id, "repair", len(attempt), 0) % 3
        if right is None or answer_of(right) == answer_of(attempt) or kind == 2:
            return right
        given = right.replace("Thought: ", "Thought: the answer key says so: ")
        return given if kind else attempt and format_keep()


TAUGHT = {"correct": {"policy": "teacher", "num_corrections": 3}, "pairs": {"min_agreement": 3}}


@pytest.fixture(scope="module")
def corrected_by_teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRun, Game, Reviewing]:
    """A run whose wrong attempts the teacher repairs, in stage 2, too."""
    reviewer = Reviewing()
    run = SmallRun(tmp_path_factory.mktemp("taught"), small_config(**TAUGHT), reviewer=reviewer)
    game = run.open()
    assert play_all(game).version == 2
    return run, game, reviewer


def test_a_teacher_repairs_every_wrong_attempt_once_and_checks_none(
    corrected_by_teacher: tuple[SmallRun, Game, Reviewing],
):
    run = corrected_by_teacher[0]
    for iteration in ("001", "002"):
        attempts = trajectories(run, f"{iteration}/attempts")
        corrections = trajectories(run, f"{iteration}/corrections")
        assert [(t.question_id, t.attempt, t.task, t.sample, t.version) for t in corrections] == [
            (t.question_id, t.attempt, "repair", 0, TEACHER_VERSION) for t in attempts if t.answer and not t.correct
        ]
    assert {each.task for each in corrected_by_teacher[2].reviewed} == {"repair"}


def test_one_right_repair_of_a_teacher_makes_a_pair(corrected_by_teacher: tuple[SmallRun, Game, Reviewing]):
    run = corrected_by_teacher[0]
    pairs = list(iter_parts(run.path / "iterations/002/candidates", PreferencePair))
    versions = {(pair.source, pair.chosen_version, pair.rejected_version) for pair in pairs}
    assert versions == {("correction", TEACHER_VERSION, 1), ("own", 1, 1)}


def test_a_teachers_repair_that_does_not_count_is_never_right(
    corrected_by_teacher: tuple[SmallRun, Game, Reviewing],
):
    run, game, _ = corrected_by_teacher
    corrections = trajectories(run, "001/corrections")
    counted = game.run.result(1, "correct")
    assert counted["dropped"] == {
        "correction misses the key": sum(t.output == format_keep() for t in corrections),
        "correction speaks of a given answer": sum("answer key" in t.output for t in corrections),
    }
    assert min(counted["dropped"].values()) > 0
    assert counted["repair_wrong"] == counted["dropped"]["correction misses the key"]
    assert counted["repair_unreadable"] == counted["dropped"]["correction speaks of a given answer"]
    assert counted["repair_right"] == len(corrections) - sum(counted["dropped"].values()) > 0
    assert not any(t.correct for t in corrections if t.output == format_keep() or "answer key" in t.output)


def test_beside_a_teacher_the_corrector_that_is_evaluated_is_version_0(
    corrected_by_teacher: tuple[SmallRun, Game, Reviewing],
):
    run, game, _ = corrected_by_teacher
    assert {t.version for t in trajectories(run, "002/evaluation/test/answers")} == {2}
    assert {t.version for t in trajectories(run, "002/evaluation/test/corrections")} == {0}
    assert {version for role, version in game.team.served if role == "corrector"} == {0}


def test_a_teacher_by_rules_costs_calls_and_nothing_else(corrected_by_teacher: tuple[SmallRun, Game, Reviewing]):
    run, game, reviewer = corrected_by_teacher
    repairs = [t for number in ("001", "002") for t in trajectories(run, f"{number}/corrections")]
    stages = summarise(game, 2)["teacher"]
    assert stages["stage_2"] == {
        "calls": len(reviewer.reviewed),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "written_chars": sum(len(t.output) for t in repairs),
        "cost": 0.0,
    }
    assert len(repairs) == len(reviewer.reviewed)
    # Six templates, a synthetic mistake of each, the templates once more to keep them, and distinct own attempts.
    assert stages["stage_1"]["calls"] >= 18
    assert stages["stage_1"]["cost"] == 0.0


def test_without_a_teacher_in_stage_2_it_costs_nothing_there(finished: tuple[SmallRun, Game]):
    assert summarise(finished[1], 2)["teacher"]["stage_2"] == {
        "calls": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "written_chars": 0,
        "cost": 0.0,
    }


def test_a_run_whose_teacher_dies_at_every_second_block_repairs_none_twice_and_ends_with_the_same_rows(
    corrected_by_teacher: tuple[SmallRun, Game, Reviewing], tmp_path: Path
):
    reviewed: list[Submission] = []
    failures = []
    path = tmp_path / small_config().run.name
    while not (path / "iterations/002/DONE").exists():
        reviewer = Reviewing(dies_at=2)
        game = SmallRun(tmp_path, small_config(**TAUGHT), reviewer=reviewer).open()
        try:
            play_all(game)
        except RunFailed as error:
            failures.append(str(error).partition(";")[0])
        reviewed += reviewer.reviewed
    assert failures == [f"iteration {number}, correct: the teacher died" for number in (1, 2, 2)]
    finished_run, finished_game, _ = corrected_by_teacher
    assert rows_of(SmallRun(tmp_path, small_config(**TAUGHT))) == rows_of(finished_run)
    keys = [(each.question.id, each.attempt) for each in reviewed]
    assert keys == [(each.question.id, each.attempt) for each in corrected_by_teacher[2].reviewed]
    assert summarise(game, 2)["teacher"] == summarise(finished_game, 2)["teacher"]


class Diverging(FakeTeam):
    """A team whose first DPO diverges."""

    def train_dpo(self, policy: Path, reference: Path, pairs: Path, out: Path, *, name: str, on_step: OnStep) -> Any:
        if name == "dpo-001":
            raise Diverged("dpo: at step 3 the loss is nan")
        return super().train_dpo(policy, reference, pairs, out, name=name, on_step=on_step)


def diverging(root: Path, **guards: str) -> Game:
    game = SmallRun(root, small_config(guards=guards)).open()
    questions = [question for questions in (game.train, game.dev, game.test) for question in questions]
    return replace(game, team=Diverging(questions, SKILLS))


def test_a_training_that_diverges_is_recorded_and_the_parent_plays_on(tmp_path: Path):
    game = diverging(tmp_path)
    assert play_all(game).version == 2
    metrics = game.run.metrics(1)
    assert metrics["adopted_version"] == 0
    assert metrics["rejected"] == {"rule": "not finite", "figures": {}, "why": "dpo: at step 3 the loss is nan"}
    assert "publish" not in metrics
    rejected = read_iterations(game.run, 2)[1]
    assert (rejected.is_adopted, rejected.why_rejected) == (False, "dpo: at step 3 the loss is nan")
    assert PolicyStore(game.run.policies).versions() == [0, 2]
    assert PolicyStore(game.run.policies).get(2).manifest.parent == 0
    [event] = [event for event in game.run.events() if event["event"] == "policy rejected"]
    assert (event["iteration"], event["rule"], event["why"]) == (1, "not finite", "dpo: at step 3 the loss is nan")
    assert [each and each["rule"] for each in summarise(game, 2)["versions"]["rejected"]] == ["not finite", None]


def test_a_run_that_is_to_stop_when_a_policy_is_rejected_does_so_and_goes_on_with_the_parent(tmp_path: Path):
    with pytest.raises(RunFailed) as caught:
        play_all(diverging(tmp_path, on_rejection="stop"))
    assert str(caught.value) == (
        "iteration 1: the policy was rejected: dpo: at step 3 the loss is nan; the run stops, as guards.on_rejection "
        f"says; with the policy before it, it goes on by: {RESUME_COMMAND}"
    )
    game = diverging(tmp_path, on_rejection="stop")
    assert play_all(game).version == 2
    assert game.progress.phases[0] == (2, "generate")
    assert {t.version for t in iter_parts(game.run.iteration(2) / "attempts", Trajectory)} == {0}


def test_a_policy_rejected_by_its_evaluation_is_told_with_the_rule_and_its_figures(tmp_path: Path):
    game = SmallRun(tmp_path, small_config(), SKILLS | {"sft-train": 0.6, "dpo-001": 0.0}).open()
    play_all(game)
    rejected = game.run.metrics(1)["rejected"]
    assert rejected["rule"] == "worse on dev"
    assert rejected["figures"]["gain"] == game.run.metrics(1)["dev_comparison"]["gain"]
    assert "rejected" not in game.run.metrics(2)


def test_a_training_that_starts_again_leaves_the_steps_since_then(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        on_step = game.step_keeper(1, "train")
        for step in (1.0, 2.0, 1.0, 2.0, 3.0):
            on_step({"step": step, "loss": 0.5})
        assert [metrics["step"] for metrics in game.run.steps(1, "train")] == [1.0, 2.0, 3.0]
