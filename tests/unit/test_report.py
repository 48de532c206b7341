"""The report of small runs: finished, failed, and with text that would like to be markup."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import RESUME_COMMAND, SmallRun, small_config
from hostile import NASTY, plain
from large_run import large_run, num_trajectories_of

from jobs.self_play import play_to_the_end
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Trajectory
from medcritical_ray.report import render_report, write_report
from medcritical_ray.report.figures import run_figures
from medcritical_ray.report.page import drops_table, funnel_table, number, outcome_sentence, proportion
from medcritical_ray.report.plots import MAX_POINTS, plot_training, running_mean, thinned
from medcritical_ray.report.trajectories import MAX_BYTES_PER_OUTCOME, MAX_CHARS, PER_OUTCOME, outcome_of
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.state import run_state
from medcritical_ray.run.tables import part_path, read_part, write_part


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    game = SmallRun(tmp_path_factory.mktemp("finished"), small_config()).open()
    with game.run:
        play_to_the_end(game)
    return RunDirectory(game.run.path)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose machine died in the attempts of the second iteration."""
    game = SmallRun(tmp_path_factory.mktemp("failed"), small_config()).open(fails_at=53)
    with game.run, pytest.raises(RunFailed, match="iteration 2, generate"):
        play_to_the_end(game)
    return RunDirectory(game.run.path)


def examples_in(page: str) -> list[dict]:
    [text] = re.findall(r'<script type="application/json" id="examples">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_a_run_leaves_its_report(finished: RunDirectory):
    page = finished.report_file.read_text()
    assert page == render_report(finished)
    assert '<span class="state finished">finished</span>' in page


def test_the_outcome_is_told_in_a_sentence_with_its_figures(finished: RunDirectory):
    figures = run_figures(finished)
    before, after = figures.iterations[0].test["accuracy"], figures.final.test["accuracy"]
    assert outcome_sentence(figures) == (
        f"Accuracy on 8 test questions went from {100 * before['value']:.1f} % after stage 1 to "
        f"{100 * after['value']:.1f} % [{100 * after['low']:.1f}, {100 * after['high']:.1f}] after "
        f"iteration {figures.final.number}: {100 * (after['value'] - before['value']):+.1f} points "
        f"(McNemar's exact test, p = {figures.gain.p_value:.2g})."
    )


def test_the_page_loads_nothing_from_elsewhere(finished: RunDirectory):
    page = finished.report_file.read_text()
    loading = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"|url\(([^)]*)\)|@import', page)
    assert {target or url for target, url in loading} >= {"#accuracy", "#trajectories"}
    assert all((target or url).startswith(("#", "'#", '"#')) for target, url in loading)


def test_a_failed_run_has_a_report_that_says_where_and_why(failed: RunDirectory):
    page = failed.report_file.read_text()
    assert '<span class="state failed">failed</span>' in page
    assert "Failed in iteration 2, generate: RuntimeError(&#39;the machine died&#39;)" in page
    assert run_state(failed).cause == "RuntimeError('the machine died')"
    assert [each.number for each in run_figures(failed).iterations] == [0, 1]


def test_a_run_that_somebody_works_on_is_in_progress(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        assert run_state(game.run).state == "in progress"
        page = render_report(game.run)
        assert f"In progress, by process {os.getpid()} on " in page
        assert "done so far: stage 1, begin" in page
        assert re.search(r"This page was written at \d{4}-\d\d-\d\d \d\d:\d\d UTC; the run may have gone on", page)
    assert run_state(game.run).state == "stopped"
    page = render_report(game.run)
    assert "Stopped after stage 1, begin; it can be resumed. No policy has been evaluated yet." in page
    assert f"Resume it with: {RESUME_COMMAND}" in page


def test_an_interrupted_run_leaves_a_page_that_says_so_while_its_process_still_holds_it(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open(killed_at=12)
    with game.run:
        with pytest.raises(KeyboardInterrupt):
            play_to_the_end(game)
        page = game.run.report_file.read_text()
    assert '<span class="state stopped">stopped</span>' in page
    assert "Stopped after iteration 1, correct (interrupted (Ctrl-C)); it can be resumed." in page
    with (game := SmallRun(tmp_path, small_config()).open()).run:
        play_to_the_end(game)
    page = game.run.report_file.read_text()
    assert '<span class="state finished">finished</span>' in page
    assert "The run was resumed once." in page


def test_engines_that_a_run_has_outlived_are_told(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        for deaths in (1, 2):
            game.run.append_event("engine died", engine="demo-0", version=1, deaths=deaths, cause="process died")
        assert "Engines died twice." in render_report(game.run)
        game.run.append_event("engine retired", engine="demo-0", version=1, deaths=2)
        assert "Engines died twice, 1 of them for good." in render_report(game.run)


def test_the_steps_of_every_training_are_drawn(finished: RunDirectory):
    page = finished.report_file.read_text()
    for title in ("stage 1, draft", "stage 1, SFT", "iteration 1, DPO", "iteration 2, DPO"):
        assert f"<h3>{title}</h3>" in page
    assert finished.steps(1, "train") == [{"step": 1.0, "num_steps": 1.0, "loss": 0.5}]


def test_the_funnel_counts_what_was_written(finished: RunDirectory):
    stages = {stage: nums[0] for stage, nums in funnel_table(run_figures(finished).iterations)}
    attempts = [t for b in range(2) for t in read_part(part_path(finished.iteration(1) / "attempts", b), Trajectory)]
    assert stages["attempts"] == len(attempts) == 16
    assert stages["right"] == sum(t.correct for t in attempts)
    assert stages["pairs made"] == sum(finished.result(1, "pair")["pairs"].values())


def test_what_an_iteration_has_not_come_to_yet_is_left_blank(finished: RunDirectory):
    first, second = run_figures(finished).iterations[1:]
    phases = {"generate": second.phases["generate"]}
    rows = dict(funnel_table([first, replace(second, phases=phases)]))
    assert rows["attempts"] == [16, 16]
    assert rows["pairs made"] == [sum(finished.result(1, "pair")["pairs"].values()), None]


def test_drops_of_every_phase_have_a_column_for_stage_1_and_each_iteration(finished: RunDirectory):
    stage_one, *iterations = run_figures(finished).iterations
    taught = {"dropped": {"budget": 3}, "teacher": {}}
    trained = {**stage_one.phases["train"], "num_too_long": 2}
    stage_one = replace(stage_one, phases={**stage_one.phases, "teach": taught, "train": trained})
    rows = dict(drops_table([stage_one, *iterations]))
    assert rows.pop("teach: budget") == [3, 0, 0]
    assert rows.pop("train: too long to train on") == [2, 0, 0]
    pairing = [finished.result(number, "pair")["dropped"] for number in (1, 2)]
    assert rows == {f"pair: {why}": [0, *(each.get(why, 0) for each in pairing)] for each in pairing for why in each}


def test_what_models_and_exams_wrote_is_text_and_never_markup(tmp_path: Path):
    hostile = " ".join(
        ["</script><script>alert(1)</script><img src=x onerror=alert(2)> &", *map(plain, NASTY.values())]
    )
    small = SmallRun(tmp_path, small_config())
    game = small.open()
    with game.run:
        play_to_the_end(game)
    run = RunDirectory(game.run.path)
    part = part_path(run.iteration(1) / "attempts", 0)
    attempts = read_part(part, Trajectory)
    write_part(part.parent, 0, [replace(attempt, trace=hostile, correct=False) for attempt in attempts], Trajectory)
    train = run.path / "data" / "train.parquet"
    write_questions(train, [replace(question, stem=hostile, labels={hostile: hostile}) for question in game.train])
    test = run.path / "data" / "test.parquet"
    write_questions(test, [replace(question, labels={hostile: hostile}) for question in game.test])
    page = render_report(run)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert any(example["stem"] == hostile and example["attempt"] == hostile for example in examples_in(page))


def test_examples_are_bounded_by_outcome_and_all_are_counted(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    assert PER_OUTCOME == 250
    whole = examples_in(finished.report_file.read_text())
    monkeypatch.setattr("medcritical_ray.report.trajectories.PER_OUTCOME", 3)
    page = render_report(finished)
    few = examples_in(page)
    assert {example["outcome"] for example in few} == {example["outcome"] for example in whole}
    num_repaired = sum(example["outcome"] == "repaired" for example in whole)
    assert num_repaired > 3 == sum(example["outcome"] == "repaired" for example in few)
    assert f"{num_repaired} repaired" in page


def test_an_example_marks_the_lines_of_the_first_step_that_differs(finished: RunDirectory):
    repaired = [e for e in examples_in(finished.report_file.read_text()) if e["outcome"] == "repaired"]
    assert repaired
    for example in repaired:
        attempt, correction = example["attempt"].splitlines(), example["correction"].splitlines()
        at, there = example["differ_at"]
        assert attempt[1:at] == correction[1:there]
        assert attempt[at] != correction[there]


def test_a_large_run_with_long_texts_has_a_page_of_bounded_size(tmp_path: Path):
    run = large_run(tmp_path, 2400, num_chars=MAX_CHARS + 12)
    assert num_trajectories_of(run) >= 2400
    page = render_report(run)
    assert len(page.encode()) < 6 * MAX_BYTES_PER_OUTCOME + 1_000_000 < 10_000_000
    longest = max(examples_in(page), key=lambda example: len(example["attempt"]))
    assert re.search(r"x… \(\d+ more characters\)$", longest["attempt"])
    assert {example["outcome"] for example in examples_in(page)} >= {"repaired", "still wrong", "broken"}


def test_a_long_curve_is_drawn_by_means():
    points = [(float(step), float(step % 2)) for step in range(10 * MAX_POINTS)]
    drawn = thinned(points)
    assert (len(drawn), drawn[0], drawn[-1]) == (MAX_POINTS, (4.5, 0.5), (10 * MAX_POINTS - 5.5, 0.5))
    assert thinned(points[:3]) == points[:3]
    assert thinned([]) == []


def test_a_noisy_curve_has_its_running_mean():
    means = running_mean([0.0] * 20 + [5.0] * 20)
    assert means[17:23] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert (means[0], means[-1], running_mean([3.0])) == (0.0, 5.0, [3.0])


def test_a_loss_that_falls_far_is_drawn_on_a_log_scale():
    far, near = ([{"step": step, "loss": 3.0 / step} for step in range(1, last)] for last in (60, 5))
    assert ">0.2<" in plot_training("far", far)
    assert ">0.2<" not in plot_training("near", near)


@pytest.mark.parametrize(
    ("was_correct", "corrected", "outcome"),
    [
        (False, None, "not corrected"),
        (False, ("C", True), "repaired"),
        (False, ("B", False), "still wrong"),
        (False, ("", False), "unreadable"),
        (True, ("C", True), "still right"),
        (True, ("B", False), "broken"),
    ],
)
def test_what_became_of_an_attempt(was_correct: bool, corrected: tuple[str, bool] | None, outcome: str):
    attempt = Trajectory(
        iteration=1,
        question_id="q",
        task="solve",
        attempt=0,
        sample=0,
        version=0,
        output="",
        trace="",
        finished=True,
        num_tokens=1,
        answer="A",
        agrees=True,
        correct=was_correct,
    )
    correction = replace(attempt, task="repair", answer=corrected[0], correct=corrected[1]) if corrected else None
    assert outcome_of(attempt, correction) == outcome


def test_a_proportion_of_nothing_is_a_dash():
    assert proportion({"k": 0, "n": 0, "value": 0.0, "low": 0.0, "high": 1.0}) == "–"
    assert proportion({"k": 1, "n": 2, "value": 0.5, "low": 0.095, "high": 0.905}) == "50.0 % [9.5, 90.5]"


def test_a_number_has_as_many_digits_as_tell_something():
    shown = {None: "–", 0: "0", 0.061: "< 0.1", 0.14: "0.1", 4.8: "4.8", 26.3: "26", 1208: "1,208"}
    assert {value: number(value) for value in shown} == shown


def test_a_run_of_another_version_is_refused_in_words(finished: RunDirectory, tmp_path: Path):
    other = RunDirectory(Path(shutil.copytree(finished.path, tmp_path / "other")))
    record = json.loads((other.path / "run.json").read_text())
    record["config"]["dpo"]["gone"] = 1
    (other.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is of another version: have it reported by the version that made the run"):
        render_report(other)


def test_until_a_policy_is_evaluated_the_outcome_is_the_base_students(finished: RunDirectory):
    figures = run_figures(finished)
    begun = replace(figures, iterations=figures.iterations[:0], final=None, gain=None)
    base = 100 * begun.base["accuracy"]["value"]
    sentence = f"The base student answers {base:.1f} % rightly; no policy has been evaluated yet."
    assert outcome_sentence(begun) == sentence


def test_a_run_that_died_before_its_questions_were_written_has_a_report_and_one_without_them_is_told(
    finished: RunDirectory, tmp_path: Path
):
    other = RunDirectory(Path(shutil.copytree(finished.path, tmp_path / "other")))
    shutil.rmtree(other.path / "data")
    with pytest.raises(UserError, match=r"data/test\.parquet does not exist"):
        render_report(other)
    shutil.rmtree(other.path / "iterations")
    other.summary_file.unlink()
    assert "No policy has been evaluated yet." in render_report(other)


def test_there_is_no_report_without_a_run(tmp_path: Path):
    with pytest.raises(UserError, match="there is no run in"):
        write_report(RunDirectory(tmp_path), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
