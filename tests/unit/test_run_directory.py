import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from medcritical_ray.errors import Stopped, UserError, WaitTimeout
from medcritical_ray.files import sha256_of, write_json
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.lock import LOCK
from medcritical_ray.run.record import new_record
from medcritical_ray.run.state import note_end
from medcritical_ray.store.keeping import KeepingListener

CONFIG: dict[str, Any] = {
    "run": {"seed": 0, "directory": "runs"},
    "dpo": {"beta": 0.1, "num_epochs": 1, "learning_rate": 5e-6},
    "engines": {"num_engines": 2, "request_timeout_s": 60.0, "dtype": "bfloat16"},
    "teacher": {"endpoint": {"model": "big", "max_cost": 5.0, "prices": {}}},
}
PHASES = ["generate", "correct", "pair", "train", "publish", "evaluate"]


def changed(part: str, **values: Any) -> dict[str, Any]:
    return CONFIG | {part: CONFIG[part] | values}


def create(path: Path, config: dict[str, Any] = CONFIG) -> RunDirectory:
    return RunDirectory.create(
        path,
        new_record(config, {"run": 0}, {"train": "aa", "test": "bb"}),
        resume_command="medcritical self-play --config demo.toml --resume",
    )


def resume(path: Path, config: dict[str, Any] = CONFIG, fingerprints: dict[str, str] | None = None) -> RunDirectory:
    return RunDirectory.resume(
        path,
        new_record(config, {"run": 0}, fingerprints or {"train": "aa", "test": "bb"}),
        resume_command="medcritical self-play --config demo.toml --resume",
    )


def test_a_new_run_records_its_config_code_packages_seeds_and_data(tmp_path: Path):
    with create(tmp_path / "demo"):
        record = json.loads((tmp_path / "demo" / "run.json").read_text())
    assert record["config"] == CONFIG
    assert record["seeds"] == {"run": 0}
    assert record["fingerprints"] == {"train": "aa", "test": "bb"}
    assert record["code_version"]
    assert record["packages"]["pyarrow"]


def test_an_existing_run_is_not_started_again_and_the_message_says_how_to_resume(tmp_path: Path):
    create(tmp_path / "demo").close()
    before = (tmp_path / "demo" / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"`medcritical self-play --config demo\.toml --resume`"):
        create(tmp_path / "demo")
    assert (tmp_path / "demo" / "run.json").read_bytes() == before


def test_a_directory_of_something_else_is_not_made_a_run(tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists and is no run"):
        create(tmp_path)


def test_a_run_that_died_before_its_record_is_started_anew(tmp_path: Path):
    (tmp_path / ".lock").touch()
    with create(tmp_path) as run:
        assert run.record().config == CONFIG


def test_nothing_is_not_resumed_and_nothing_is_made(tmp_path: Path):
    with pytest.raises(UserError, match="demo: nothing to resume"):
        resume(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_a_damaged_record_is_named(tmp_path: Path):
    create(tmp_path).close()
    (tmp_path / "run.json").write_text('{"config": {}}')
    with pytest.raises(UserError, match=r"run\.json is not the record of a run"):
        resume(tmp_path)


def test_another_config_is_not_resumed_and_the_first_three_differences_are_named(tmp_path: Path):
    create(tmp_path).close()
    other = changed("dpo", beta=0.2, num_epochs=2, learning_rate=1e-6) | {"sft": {"num_epochs": 1}}
    expected = (
        "the run was started with other config: dpo.beta is 0.2, was 0.1, dpo.learning_rate is 1e-6, was 5e-6, "
        "dpo.num_epochs is 2, was 1 and 1 more; restore them or choose another run.name"
    )
    with pytest.raises(UserError) as caught:
        resume(tmp_path, other)
    assert str(caught.value) == expected


def test_other_data_are_not_resumed(tmp_path: Path):
    create(tmp_path).close()
    with pytest.raises(UserError, match='with other data: test is "cc", was "bb"'):
        resume(tmp_path, fingerprints={"train": "aa", "test": "cc"})


def test_time_limits_and_numbers_of_engines_may_change_and_are_noted(tmp_path: Path):
    create(tmp_path).close()
    with resume(tmp_path, changed("engines", num_engines=1, request_timeout_s=600.0)) as run:
        changes = next(event for event in run.events() if event["event"] == "run resumed")["changes"]
    assert changes == ["engines.num_engines: 2 -> 1", "engines.request_timeout_s: 60.0 -> 600.0"]


def test_what_decides_an_engines_text_may_not_change(tmp_path: Path):
    create(tmp_path).close()
    with pytest.raises(UserError, match=r"engines\.dtype is"):
        resume(tmp_path, changed("engines", dtype="float32"))


def test_a_teachers_budget_may_be_raised_and_its_price_told_but_it_stays_the_same_model(tmp_path: Path):
    create(tmp_path).close()
    prices = {"big": {"input_per_million": 1.0, "output_per_million": 2.0}}
    richer = {"model": "big", "max_cost": 9.0, "prices": prices}
    with resume(tmp_path, changed("teacher", endpoint=richer)) as run:
        changes = next(event for event in run.events() if event["event"] == "run resumed")["changes"]
    assert changes[0] == "teacher.endpoint.max_cost: 5.0 -> 9.0"
    with pytest.raises(UserError, match=r"teacher\.endpoint\.model is"):
        resume(tmp_path, changed("teacher", endpoint={**richer, "model": "other"}))


def test_phases_are_remembered_with_their_results(tmp_path: Path):
    with create(tmp_path) as run:
        assert not run.done(1, "generate")
        run.mark_done(1, "generate", {"num_attempts": 800})
        run.mark_done(1, "correct", {})
    with resume(tmp_path) as run:
        assert run.done(1, "generate")
        assert run.result(1, "generate") == {"num_attempts": 800}
        assert [phase for phase in PHASES if run.done(1, phase)] == ["generate", "correct"]
        assert not run.done(2, "generate")


def test_an_iteration_is_finished_once_its_metrics_are_written(tmp_path: Path):
    with create(tmp_path) as run:
        assert not run.is_finished(1)
        run.finish_iteration(1, {"accuracy": 0.5, "loss": float("nan")})
        assert run.is_finished(1)
        assert run.metrics(1) == {"accuracy": 0.5, "loss": None}
    assert (tmp_path / "iterations" / "001" / "DONE").exists()


def test_events_are_read_in_order_with_time_and_fields(tmp_path: Path):
    with create(tmp_path) as run:
        run.append_event("engine replaced", engine=2)
        events = list(run.events())
    assert [event["event"] for event in events] == ["run created", "engine replaced"]
    assert events[1]["engine"] == 2
    assert events[0]["time"] <= events[1]["time"]


def test_a_torn_last_event_is_skipped_and_does_not_spoil_the_next(tmp_path: Path):
    with create(tmp_path) as run:
        with (tmp_path / "events.jsonl").open("a") as file:
            file.write('{"time": "2026-01-')
        assert [event["event"] for event in run.events()] == ["run created"]
        run.append_event("phase done")
        assert [event["event"] for event in run.events()] == ["run created", "phase done"]


def test_a_torn_step_is_skipped_and_does_not_spoil_the_next(tmp_path: Path):
    with create(tmp_path) as run:
        run.forget_steps(1, "train")
        run.append_step(1, "train", {"step": 1.0})
        with (tmp_path / "iterations/001/steps/train.jsonl").open("a") as file:
            file.write('{"step": 2')
        run.append_step(1, "train", {"step": 3.0})
        assert run.steps(1, "train") == [{"step": 1.0}, {"step": 3.0}]


def leave(run: RunDirectory, *names: str) -> None:
    for name in names:
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_phase_signs_for_what_it_left_and_for_nothing_that_another_left(tmp_path: Path):
    with create(tmp_path) as run:
        leave(run, "data/train.parquet", "iterations/001/attempts/part-00000.parquet", "iterations/001/.half.tmp")
        run.mark_done(1, "generate", {"num": 1}, beside=[run.path / "data", run.path / "student"])
        leave(run, "iterations/001/corrections/part-00000.parquet", "iterations/001/metrics.json")
        run.mark_done(1, "correct", {"num": 2})
        assert list(run.left(1, "generate")) == ["data/train.parquet", "iterations/001/attempts/part-00000.parquet"]
        assert list(run.left(1, "correct")) == ["iterations/001/corrections/part-00000.parquet"]
        assert run.left(1, "correct")["iterations/001/corrections/part-00000.parquet"] == (
            "5e3813fea9dfaacf69d2759de6b2b42008fc4b1d83aaf7518a125458abfbd605"
        )
        assert run.result(1, "correct") == {"num": 2}


def test_what_a_later_phase_wrote_ahead_is_signed_for_by_that(tmp_path: Path):
    attempts, corrections = (f"iterations/001/{name}/part-00000.parquet" for name in ("attempts", "corrections"))
    with create(tmp_path) as run:
        leave(run, attempts, corrections)
        run.mark_done(1, "generate", {}, ahead=[run.iteration(1) / "corrections"])
        run.mark_done(1, "correct", {})
        assert list(run.left(1, "generate")) == [attempts]
        assert list(run.left(1, "correct")) == [corrections]


def test_what_a_phase_left_is_checked_by_its_hash(tmp_path: Path):
    with create(tmp_path) as run:
        leave(run, "iterations/001/attempts/part-00000.parquet")
        run.mark_done(1, "generate", {})
        run.check_left(1, "generate")
        part, marker = run.iteration(1) / "attempts/part-00000.parquet", run.phase_file(1, "generate")
        remedy = f"restore it; or remove it and {marker}: then resuming writes it again"
        part.write_text("another")
        with pytest.raises(UserError) as caught:
            run.check_left(1, "generate")
        assert str(caught.value) == (f"{part} is damaged: its SHA-256 is not that which was recorded: {remedy}")
        part.unlink()
        with pytest.raises(UserError, match=rf"^{part} is missing: restore it"):
            run.check_left(1, "generate")


@pytest.mark.parametrize("content", ["[1]", "{", '{"files": 3}', ""])
def test_a_damaged_marker_is_named(tmp_path: Path, content: str):
    with create(tmp_path) as run:
        run.mark_done(1, "generate", {})
        run.phase_file(1, "generate").write_text(content)
        with pytest.raises(UserError, match=r"iterations/001/phases/generate\.json"):
            run.check_left(1, "generate")


def test_events_have_the_hashes_of_what_they_speak_of(tmp_path: Path):
    with create(tmp_path) as run:
        run.mark_done(1, "generate", {})
        run.finish_iteration(1, {"adopted_version": 0})
        run.finish({"accuracy": 1.0})
        hashes = {event["event"]: event["sha256"] for event in run.events()}
        assert hashes == {
            "run created": sha256_of(run.record_file),
            "phase done": sha256_of(run.phase_file(1, "generate")),
            "iteration done": sha256_of(run.done_file(1)),
            "run finished": sha256_of(run.summary_file),
        }
        assert list(run.markers(1)) == ["iterations/001/metrics.json", "iterations/001/phases/generate.json"]


def test_two_processes_do_not_work_on_one_run(tmp_path: Path):
    with create(tmp_path), pytest.raises(UserError, match=f"is being worked on by process {os.getpid()} on "):
        resume(tmp_path)


def test_whoever_only_looks_at_the_lock_keeps_nobody_from_the_run(tmp_path: Path):
    create(tmp_path).close()
    with (tmp_path / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        resume(tmp_path).close()


def test_a_run_that_somebody_works_on_is_not_offered_to_be_resumed(tmp_path: Path):
    with create(tmp_path), pytest.raises(UserError, match=f"is being worked on by process {os.getpid()} on "):
        create(tmp_path)
    with pytest.raises(UserError, match="holds a run already: resume it with"):
        create(tmp_path)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path):
    create(tmp_path).close()
    holding = "import sys, time, pathlib; from medcritical_ray.run.lock import RunLock; "
    holding += "lock = RunLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", holding, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on "):
            resume(tmp_path)
        holder.send_signal(signal.SIGKILL)
    resume(tmp_path).close()


def test_json_is_whole_or_not_written(tmp_path: Path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Unable to serialize"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize("directory", ["file", "file/below"])
def test_a_place_that_cannot_hold_a_run_is_refused(tmp_path: Path, directory: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"exists and is no run|cannot be written .*: choose another run\.directory"):
        create(tmp_path / directory)


class Counting:
    """A keeper that notes the last event of the run each time, and has no store left when it is told so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_lost = False
        self.last_events: list[str] = []

    def push(self) -> None:
        if self.is_lost:
            raise WaitTimeout("the store could not be used for 1 s")
        self.last_events.append([event["event"] for event in RunDirectory(self.path).events()][-1])


def kept_run(path: Path) -> tuple[RunDirectory, Counting]:
    keeper = Counting(path)
    run = RunDirectory.create(path, new_record(CONFIG), resume_command="medcritical", keeper=keeper)
    return run, keeper


def test_a_run_is_kept_whenever_something_is_done_and_at_its_end(tmp_path: Path):
    run, keeper = kept_run(tmp_path / "demo")
    with run:
        run.mark_done(1, "generate", {})
        run.finish_iteration(1, {})
        run.append_event("something else")
    assert keeper.last_events == ["run created", "phase done", "iteration done", "something else"]


def test_a_run_that_is_stopped_says_so_and_is_kept(tmp_path: Path):
    run, keeper = kept_run(tmp_path / "demo")
    with run:
        note_end(run, Stopped("SIGTERM"))
    assert list(run.events())[-1]["cause"] == "SIGTERM"
    assert keeper.last_events[-1] == "run stopped"


def test_a_store_that_is_lost_with_the_run_hides_nothing_of_what_ended_it(tmp_path: Path):
    run, keeper = kept_run(tmp_path / "demo")
    keeper.is_lost = True
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    run, keeper = kept_run(tmp_path / "other")
    keeper.is_lost = True
    with pytest.raises(WaitTimeout, match="could not be used"), run:
        pass


def test_parts_of_a_phase_are_kept_every_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, keeper = kept_run(tmp_path / "demo")
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = KeepingListener(run)
    for seconds in (4.0, 9.0, 11.0, 12.0, 22.0):
        now[0] = seconds
        progress.advance("attempts", 1, 9)
    now[0] = 33.0
    progress.step(1, "train", {"step": 1, "num_steps": 9})
    assert len(keeper.last_events) == 4
    run.close()
