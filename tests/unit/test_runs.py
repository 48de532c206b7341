"""`medcritical runs`: what it says of runs in every state, and of damaged ones."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import RESUME_COMMAND, SKILLS, SmallRun, small_config

from jobs.cli import main
from jobs.parts.summaries import print_contamination, print_stage_one, print_summary
from jobs.parts.terminal import wide_console
from jobs.self_play import accounted_for, play_to_the_end
from medcritical_ray.errors import RunFailed
from medcritical_ray.files import write_json
from medcritical_ray.questions.contamination import Contamination, SharedStems, Twins
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.listing import run_row, runs_below
from medcritical_ray.run.questions import QUESTIONS_PHASE, contamination_path
from medcritical_ray.run.state import note_stage_one_alone, run_state
from medcritical_ray.stage_one import stage_one


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def played(root: Path, **ends: int) -> RunDirectory:
    """A small run, played until it fails or is killed, if it is."""
    game = SmallRun(root, small_config()).open(**ends)
    with game.run:
        try:
            play_to_the_end(game)
        except (RunFailed, KeyboardInterrupt):
            assert ends
    return RunDirectory(game.run.path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return played(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def root(finished: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in every state that a process leaves behind, and one whose record is gone."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(finished.path, root / "finished")
    played(root / "failed", fails_at=53)
    played(root / "interrupted", killed_at=12)
    shutil.copytree(finished.path, root / "nested" / "damaged")
    (root / "nested" / "damaged" / "run.json").unlink()
    return root


def place_of(row: dict) -> str:
    """Which of them a row is."""
    run = Path(row["run"])
    return run.parent.name if run.name == small_config().run.name else run.name


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict]:
    assert main(["runs", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_with_state_place_and_accuracy(root: Path, capsys: pytest.CaptureFixture[str]):
    rows = {place_of(row): row for row in listed(capsys, root)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "finished": "finished",
        "failed": "failed",
        "interrupted": "stopped",
        "damaged": "damaged",
    }
    assert (rows["failed"]["iteration"], rows["failed"]["phase"]) == (2, "generate")
    assert rows["failed"]["cause"] == "RuntimeError('the machine died')"
    assert rows["interrupted"]["cause"] == "interrupted (Ctrl-C)"
    summary = json.loads((root / "finished" / "summary.json").read_text())
    assert rows["finished"]["accuracy"]["value"] == summary["accuracy"]["final"]
    assert rows["finished"]["version"] == summary["versions"]["final"]
    assert rows["finished"]["accuracy"]["n"] == 8


def test_a_run_says_what_to_do_next(root: Path, capsys: pytest.CaptureFixture[str]):
    rows = {place_of(row): row for row in listed(capsys, root)}
    assert next(iter(rows["finished"]["next"].items())) == (
        "export",
        f"medcritical export --run {root / 'finished'} --out finished-model",
    )
    for name in ("failed", "interrupted"):
        assert next(iter(rows[name]["next"].items())) == ("resume", RESUME_COMMAND)
        assert rows[name]["next"]["report"] == f"medcritical report {rows[name]['run']}"
    assert rows["damaged"]["next"] == {}
    assert rows["damaged"]["cause"] == f"{root / 'nested' / 'damaged'} has no run.json"


def test_the_table_has_a_row_and_a_command_for_each_run(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["runs", str(root)]) == 0
    printed = capsys.readouterr().out
    name = small_config().run.name
    for place in ("failed", "interrupted"):
        assert f"\n{root / place / name}: {RESUME_COMMAND}\n" in printed
    assert f"{root / 'interrupted' / name}: interrupted (Ctrl-C)" in printed
    [row] = [line for line in printed.splitlines() if "│ failed" in line]
    assert [cell.strip() for cell in row.split("│")][3:5] == ["2 of 2", "generate"]


def test_a_command_is_given_from_where_it_was_started(finished: RunDirectory, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events = finished.path / "events.jsonl"
    started_in = json.loads(events.read_text().splitlines()[0])["directory"]
    assert run_state(finished).command == f"cd {started_in} && {RESUME_COMMAND}"


def test_a_copy_is_resumed_where_it_lies_and_not_where_it_was_copied_from(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name = small_config().run.name
    copy = Path(shutil.copytree(root / "failed" / name, tmp_path / "my copies" / name))
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{copy}: moved or copied from {root / 'failed' / name}",
        f"{copy}: {RESUME_COMMAND} --set 'run.directory={tmp_path / 'my copies'}'",
    ]
    shutil.move(copy, tmp_path / "renamed")
    [row] = listed(capsys, tmp_path)
    assert (row["moved_from"], next(iter(row["next"]))) == (str(root / "failed" / name), "report")
    assert main(["runs", str(tmp_path)]) == 0
    told = f"{tmp_path / 'renamed'}: moved or copied from {root / 'failed' / name}: to be resumed, it must lie there"
    assert told in capsys.readouterr().out


def test_a_run_behind_a_link_is_where_it_was_begun(root: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(root / "failed")
    state = run_state(RunDirectory(tmp_path / "link" / small_config().run.name))
    assert (state.moved_from, state.command) == ("", RESUME_COMMAND)


def test_who_works_on_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        [row] = listed(capsys, tmp_path)
        assert row["state"] == "in progress"
        assert row["holder"].startswith(f"process {os.getpid()} on ")
        assert "resume" not in row["next"]
    [row] = listed(capsys, tmp_path)
    assert (row["state"], row["holder"], row["cause"]) == ("stopped", "", "")


def test_a_run_whose_process_was_killed_has_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script = "import time; from pathlib import Path; from fakes import *; from jobs.self_play import *\n"
    script += f"game = SmallRun(Path({str(tmp_path)!r}), small_config()).open()\n"
    script += "game.progress.finish_phase = lambda *_: (print('done', flush=True), time.sleep(60))\n"
    script += "play_to_the_end(game)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            [row] = listed(capsys, tmp_path)
            assert (row["state"], row["phase"]) == ("in progress", "evaluate_base")
            assert row["holder"].startswith(f"process {process.pid} on ")
        finally:
            process.kill()
    [row] = listed(capsys, tmp_path)
    assert (row["state"], row["holder"], row["phase"]) == ("stopped", "", "evaluate_base")


def test_a_run_that_went_on_after_a_failure_is_no_failed_one(tmp_path: Path):
    assert run_state(played(tmp_path, fails_at=30)).state == "failed"
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        assert run_state(game.run).state == "in progress"
        assert run_state(game.run).cause == ""
        play_to_the_end(game)
    assert (run_state(game.run).state, run_state(game.run).num_resumed) == ("finished", 1)


def test_stage_one_alone_has_stopped_as_asked_and_its_command_is_that_of_stage_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run, accounted_for(game.run, game.resume_command):
        stage_one(game)
        note_stage_one_alone(game.run, "medcritical self-play --config small.toml --resume")
    print_stage_one(wide_console(), game.run.metrics(STAGE_ONE), "medcritical self-play --config small.toml --resume")
    printed = capsys.readouterr().out
    assert "Accuracy on 8 test questions" in printed
    assert printed.endswith("Version 0 is published. Stage 2: medcritical self-play --config small.toml --resume\n")
    row = run_row(game.run.path)
    assert (row.state, row.version, row.progress.cause) == ("stopped", 0, "as asked, after stage 1")
    assert row.progress.command == "medcritical self-play --config small.toml --resume"
    game = SmallRun(tmp_path, small_config()).open()
    with game.run:
        play_to_the_end(game)
    assert run_row(game.run.path).state == "finished"


def test_the_last_table_has_no_column_without_a_figure_and_no_line_on_a_teacher_who_wrote_by_rules(
    finished: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    summary = json.loads(finished.summary_file.read_text())
    tests = [summary["test"]["base"], summary["test"]["sft"], *summary["test"]["iterations"]]
    for figures in tests:
        figures["pass_at"] = {"1": 0.5, "2": 0.75}
    print_summary(wide_console(), summary)
    printed = capsys.readouterr().out
    assert "pass@2" in printed
    assert "Teacher in" not in printed
    for figures in tests:
        del figures["pass_at"]
    summary["teacher"]["stage_1"] |= {"calls": 3, "prompt_tokens": 1200, "completion_tokens": 400, "cost": None}
    print_summary(wide_console(), summary)
    printed = capsys.readouterr().out
    assert "pass@" not in printed
    assert "Teacher in stage 1: 3 calls, 1,200 prompt tokens, 400 written tokens, cost unknown." in printed


TWINS = Twins("train-1", "test-0", "Case 1?")


def test_where_nothing_is_shared_no_examples_are_pointed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = RunDirectory(tmp_path)
    contamination_path(run).parent.mkdir()
    run.mark_done(STAGE_ONE, QUESTIONS_PHASE, {"read": {"rows": 2, "quarantined": 0}})
    nothing, one = (SharedStems(num_stems=0, examples=[]), SharedStems(num_stems=1, examples=[TWINS]))
    write_json(contamination_path(run), Contamination(splits={"train and test": nothing}, files={}, kept=False))
    print_contamination(wide_console(), run)
    assert capsys.readouterr().out == "stems in two splits: train and test 0\n"
    write_json(contamination_path(run), Contamination(splits={"train and test": one}, files={}, kept=False))
    print_contamination(wide_console(), run)
    assert capsys.readouterr().out == (
        f"stems in two splits: train and test 1 (train-1 = test-0)\nexamples: {contamination_path(run)}\n"
    )


def test_a_policy_that_was_rejected_is_told_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    game = SmallRun(tmp_path, small_config(), SKILLS | {"sft-train": 0.6, "dpo-001": 0.0}).open()
    with game.run:
        play_to_the_end(game)
    [row] = listed(capsys, tmp_path)
    assert (list(row["rejected"]), row["rejected"]["1"]["rule"]) == (["1"], "worse on dev")
    why = row["rejected"]["1"]["why"]
    assert main(["runs", str(tmp_path)]) == 0
    assert f"{game.run.path}: iteration 1: policy rejected: {why}\n" in capsys.readouterr().out
    assert f"The policy of iteration 1 was rejected: {why}." in game.run.report_file.read_text()
    print_summary(wide_console(), json.loads(game.run.summary_file.read_text()))
    assert f"Iteration 1: policy rejected: {why}." in capsys.readouterr().out


def test_a_failure_between_phases_is_noted_too(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run, pytest.raises(ZeroDivisionError), accounted_for(game.run, game.resume_command):
        raise ZeroDivisionError
    state = run_state(game.run)
    assert (state.state, state.cause) == ("failed", "ZeroDivisionError()")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b"\xff\xfe\x00"),
        ("run.json", json.dumps({"config": {"run": 3}, "seeds": {}, "fingerprints": {}}).encode()),
        ("summary.json", b"{"),
        ("iterations/000/metrics.json", b"[1]"),
        ("iterations/001/metrics.json", b'{"adopted_version": "latest"}'),
        ("iterations/002/phases/evaluate.json", b'{"test": {"accuracy": 1}}'),
        ("iterations/002/phases/evaluate.json", b"null"),
    ],
)
def test_a_damaged_run_is_a_row_that_names_the_file(finished: RunDirectory, tmp_path: Path, file: str, content: bytes):
    path = tmp_path / "damaged"
    shutil.copytree(finished.path, path)
    (path / file).write_bytes(content)
    row = run_row(path)
    assert row.state == "damaged"
    assert str(path / file) in row.fault
    assert "\n" not in row.fault


@pytest.mark.parametrize("torn", [b'{"event": "pha', b"\x00\x00", b"[1, 2]\n", b'{"event": 3, "iteration": "x"}\n'])
def test_events_that_cannot_be_read_are_passed_over(finished: RunDirectory, tmp_path: Path, torn: bytes):
    path = tmp_path / finished.path.name
    shutil.copytree(finished.path, path)
    with (path / "events.jsonl").open("ab") as file:
        file.write(torn)
    assert run_row(path).state == "finished"
    assert RESUME_COMMAND in run_row(path).progress.command


def test_a_run_whose_events_are_gone_is_told_by_its_other_files(finished: RunDirectory, tmp_path: Path):
    path = tmp_path / "silent"
    shutil.copytree(finished.path, path)
    events = path / "events.jsonl"
    events.unlink()
    assert (run_row(path).state, run_row(path).version, run_row(path).progress.command) == ("finished", 2, "")
    events.write_text('{"event": "phase done", "iteration": 2, "phase": "pair"}\n')
    (path / "summary.json").unlink()
    assert (run_row(path).state, run_row(path).progress.phase) == ("stopped", "pair")


def test_the_events_may_be_a_directory(finished: RunDirectory, tmp_path: Path):
    path = tmp_path / "odd"
    shutil.copytree(finished.path, path)
    (path / "events.jsonl").unlink()
    (path / "events.jsonl").mkdir()
    assert run_row(path).state == "damaged"


def test_runs_within_hidden_directories_and_within_runs_are_passed_over(finished: RunDirectory, tmp_path: Path):
    for place in ("b/run", "a", ".hidden/run", "b/run/copies/run"):
        shutil.copytree(finished.path, tmp_path / place)
    assert list(runs_below(tmp_path)) == [tmp_path / "a", tmp_path / "b" / "run"]


def test_a_word_before_the_directories_may_say_what_to_do(root: Path, capsys: pytest.CaptureFixture[str]):
    assert listed(capsys, "list", root / "finished") == listed(capsys, root / "finished")


def test_where_there_is_no_run_the_way_to_one_is_told(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no run in runs: `medcritical demo` makes one\n"
    assert main(["runs", "gone"]) == 2
    assert capsys.readouterr().err == (
        "error: gone: no such directory: must be the directory of a run, or one that holds runs\n"
    )
    Path("README.md").touch()
    assert main(["runs", "README.md"]) == 2
    assert capsys.readouterr().err.startswith("error: README.md: is a file: must be the directory of a run")


def test_a_hundred_runs_are_listed_within_seconds(finished: RunDirectory, tmp_path: Path, capsys):
    shutil.copytree(finished.path, tmp_path / "run-000")
    for number in range(1, 100):
        shutil.copytree(tmp_path / "run-000", tmp_path / f"run-{number:03d}", copy_function=os.link)
    before = time.process_time()
    assert len(listed(capsys, tmp_path)) == 100
    assert time.process_time() - before < 5


def test_who_interrupts_a_run_is_told_the_command_that_goes_on(tmp_path: Path):
    game = SmallRun(tmp_path, small_config()).open()
    with game.run, pytest.raises(KeyboardInterrupt) as caught, accounted_for(game.run, "medcritical demo"):
        raise KeyboardInterrupt
    assert caught.value.__notes__ == ["resume with: medcritical demo"]


def test_the_help_says_what_verify_does(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["runs", "verify", "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: medcritical runs [-h] [--json] [list | verify] [DIR ...]\n")
    assert "\n  verify  compare every file of the runs with the hash that was recorded with it" in printed


def test_a_report_goes_into_a_directory_that_is_there(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["report", str(finished.path), "--out", str(tmp_path / "gone" / "x.html")]) == 2
    assert capsys.readouterr().err == (
        f"error: --out {tmp_path / 'gone' / 'x.html'}: no such directory: {tmp_path / 'gone'}: make it, or choose "
        "another place\n"
    )
    assert not (tmp_path / "gone").exists()
    assert main(["report", str(finished.path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --out {tmp_path}: is a directory: must be a file\n"


def test_counts_in_tables_have_commas(finished: RunDirectory, capsys: pytest.CaptureFixture[str]):
    summary = json.loads(finished.summary_file.read_text()) | {"num_test": 6811}
    summary["pairs"][0]["made"] = {"own": 12345}
    print_summary(wide_console(), summary)
    printed = capsys.readouterr().out
    assert "Accuracy on 6,811 test questions" in printed
    assert "12,345" in printed
