"""`medcritical runs verify`: whole runs are whole, and whatever is done to a file is told with its name."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fakes import SKILLS, SmallRun, copies_in_place_of_links, small_config

from jobs.cli import main
from jobs.self_play import play_to_the_end
from medcritical_ray.files import sha256_of
from medcritical_ray.records import PreferencePair, Trajectory
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.tables import iter_parts, part_path, read_part, write_part
from medcritical_ray.run.verification import verify_run


def played(root: Path, *, parts: dict[str, dict[str, Any]] | None = None, **ends: int) -> RunDirectory:
    """A small run with samples, corrections and three policies, played until it is killed, if it is."""
    game = SmallRun(root, small_config(**(parts or {}))).open(**ends)
    with game.run:
        try:
            play_to_the_end(game)
        except KeyboardInterrupt:
            assert ends
    return RunDirectory(game.run.path)


@pytest.fixture(scope="module", autouse=True)
def damage_is_done_to_one_name_of_a_file() -> Iterator[None]:
    with copies_in_place_of_links():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return played(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copy(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy to be damaged."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def faults_of(run: RunDirectory) -> dict[str, str]:
    """File, by its path in the run -> what is wrong with it."""
    return {fault.file.relative_to(run.path).as_posix(): fault.what for fault in verify_run(run).faults}


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def recorded_anew(run: RunDirectory, part: Path, phase: str, iteration: int) -> None:
    """Has the markers know a part as it is now, as if the phase had left it so."""
    marker = run.phase_file(iteration, phase)
    edit(marker, files=run.left(iteration, phase) | {part.relative_to(run.path).as_posix(): sha256_of(part)})
    name = marker.relative_to(run.path).as_posix()
    edit(run.done_file(iteration), files=run.markers(iteration) | {name: sha256_of(marker)})
    forget_hashes_in_events(run)


def forget_hashes_in_events(run: RunDirectory) -> None:
    events = [{key: value for key, value in event.items() if key != "sha256"} for event in run.events()]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_attempts_that_are_wrong_alike_make_pairs_alike_and_the_run_is_whole(tmp_path: Path):
    run = played(tmp_path, parts={"generate": {"num_questions": 8, "num_attempts": 16}, "run": {"num_iterations": 1}})
    pairs = list(iter_parts(run.iteration(1) / "candidates", PreferencePair))
    assert len({replace(pair, attempt=0) for pair in pairs}) < len(pairs)
    assert faults_of(run) == {}


def test_a_finished_run_is_whole(finished: RunDirectory):
    found = verify_run(finished)
    assert (found.faults, found.notes) == ([], [])
    assert found.num_policies == 3
    assert found.num_rows == sum(map(rows_in, (finished.path / "iterations").rglob("*.parquet")))


def rows_in(part: Path) -> int:
    return pq.read_metadata(part).num_rows


CONTENTS = [
    "summary.json",
    "policies/v0001/model.safetensors",
    "policies/v0001/config.json",
    "policies/v0001/tokenizer.json",
    "iterations/000/teaching/part-00000.parquet",
    "iterations/000/drafted/model.safetensors",
    "iterations/001/metrics.json",
    "iterations/001/steps/train.jsonl",
    "iterations/001/trained/model.safetensors",
    "iterations/001/attempts/part-00001.parquet",
    "iterations/001/corrections/part-00000.parquet",
    "iterations/001/candidates/part-00000.parquet",
    "iterations/001/pairs/part-00000.parquet",
    "iterations/002/evaluation/dev/answers/part-00000.parquet",
    "iterations/002/evaluation/test/samples/part-00001.parquet",
]
"""One of each kind whose damage hides no other's; report.html can be written again, and events.jsonl may be torn."""
MARKERS = [
    "run.json",
    "policies/v0001/manifest.json",
    "policies/v0001/COMPLETE",
    "iterations/000/phases/teach.json",
    "iterations/001/phases/train.json",
    "iterations/001/DONE",
]
FILES = [CONTENTS, *([name] for name in MARKERS)]


@pytest.mark.parametrize("names", FILES, ids=["contents", *MARKERS])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_flipped_byte_is_told_with_the_file(copy: RunDirectory, names: list[str], share: float):
    for name in names:
        flip(copy.path / name, int(share * (copy.path / name).stat().st_size))
    assert set(names) <= set(faults_of(copy))


@pytest.mark.parametrize("names", FILES, ids=["contents", *MARKERS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_torn_file_is_told(copy: RunDirectory, names: list[str], share: float):
    for name in names:
        content = (copy.path / name).read_bytes()
        (copy.path / name).write_bytes(content[: int(share * len(content))])
    assert set(names) <= set(faults_of(copy))


@pytest.mark.parametrize("names", FILES, ids=["contents", *MARKERS])
def test_a_missing_file_is_told(copy: RunDirectory, names: list[str]):
    for name in names:
        (copy.path / name).unlink()
    faults = faults_of(copy)
    assert all(faults[name].startswith(("is missing", "cannot be read: no such file")) for name in names)


@pytest.mark.parametrize("killed_at", [2, 6, 10, 12, 14, 17, 20])
def test_what_an_unfinished_run_has_yet_to_do_is_not_wrong(tmp_path: Path, killed_at: int):
    run = played(tmp_path, killed_at=killed_at)
    assert not run.summary_file.exists()
    assert faults_of(run) == {}


def test_a_run_that_is_worked_on_is_whole_between_any_two_blocks(tmp_path: Path):
    game = SmallRun(tmp_path, small_config(run={"num_iterations": 1})).open()
    found = []

    def advance(label: str, done: int, total: int) -> None:
        found.append(faults_of(game.run))

    game.progress.advance = advance  # type: ignore[method-assign]
    with game.run:
        play_to_the_end(game)
    assert len(found) > 20
    assert not any(found)


def test_a_run_in_which_policies_were_rejected_is_whole(tmp_path: Path):
    game = SmallRun(tmp_path, small_config(), SKILLS | {"sft-train": 0.6, "dpo-001": 0.0}).open()
    with game.run:
        play_to_the_end(game)
    assert game.run.metrics(1)["rejected"]["rule"] == "worse on dev"
    assert faults_of(game.run) == {}


@pytest.mark.parametrize(
    "parts",
    [
        {"correct": {"policy": "teacher"}, "pairs": {"shares": {"correction": 1.0}, "min_edit_distance_chars": 1}},
        {"correct": {"policy": "initial", "num_corrections": 3}, "dpo": {"reference": "initial", "batch_size": 2}},
        {"pairs": {"shares": {"own": 1.0}, "min_edit_distance_chars": 1, "previous_share": 0.4}},
        {"sft": {"own_attempts": 0}, "evaluate": {"num_passes": 0, "corrected_share": 0.5}},
        {"teacher": {"num_questions": 2, "num_corrected": 5}},
    ],
    ids=["teacher", "initial", "own pairs and earlier ones", "no attempts in stage 1", "more corrected than taught"],
)
def test_runs_of_other_configs_are_whole(tmp_path: Path, parts: dict[str, dict]):
    game = SmallRun(tmp_path, small_config(**parts)).open()
    with game.run:
        play_to_the_end(game)
    found = verify_run(game.run)
    assert (found.faults, found.notes) == ([], [])


def test_rows_that_are_missing_or_there_twice_are_told_though_their_hash_is_recorded(copy: RunDirectory):
    part = part_path(copy.path / "iterations/001/attempts", 0)
    rows = read_part(part, Trajectory)
    write_part(part.parent, 0, [*rows[:-1], rows[0]], Trajectory)
    recorded_anew(copy, part, "generate", 1)
    assert [fault.what for fault in verify_run(copy).faults if fault.file == part] == [
        f"lacks 1 of {len(rows)} rows",
        "has 1 rows twice, by their keys",
    ]


def test_rows_of_another_version_than_played_are_told(copy: RunDirectory):
    part = part_path(copy.path / "iterations/002/attempts", 0)
    write_part(part.parent, 0, [replace(row, version=0) for row in read_part(part, Trajectory)], Trajectory)
    recorded_anew(copy, part, "generate", 2)
    assert faults_of(copy) == {"iterations/002/attempts/part-00000.parquet": "was written by version 0, not 1"}


def test_a_pair_that_is_there_twice_is_told(copy: RunDirectory):
    part = part_path(copy.path / "iterations/001/pairs", 0)
    pairs = read_part(part, PreferencePair)
    write_part(part.parent, 0, [*pairs, pairs[0]], PreferencePair)
    recorded_anew(copy, part, "pair", 1)
    assert faults_of(copy) == {
        "iterations/001/pairs/part-00000.parquet": "has 1 pairs that are there already, by their keys"
    }


def test_a_part_that_no_phase_has_left_is_told(copy: RunDirectory):
    pairs = copy.path / "iterations/001/pairs"
    shutil.copy(part_path(pairs, 0), part_path(pairs, 77))
    assert faults_of(copy)["iterations/001/pairs/part-00077.parquet"] == "was left by no phase that is done"


def test_a_policy_whose_parent_did_not_play_is_told(copy: RunDirectory):
    manifest = copy.policies / "v0002" / "manifest.json"
    edit(manifest, parent=0)
    edit(copy.phase_file(2, "publish"), manifest=sha256_of(manifest))
    assert faults_of(copy)["policies/v0002/manifest.json"] == "has version 0 as its parent, but 1 played"


def test_a_training_with_another_reference_than_the_config_says_is_told(copy: RunDirectory):
    edit(copy.phase_file(2, "train"), reference=0)
    whats = [fault.what for fault in verify_run(copy).faults if fault.file == copy.phase_file(2, "train")]
    assert "has version 0 as the reference of the training, not 1" in whats


def test_policies_that_nobody_published_and_that_are_gone_are_told(copy: RunDirectory):
    shutil.copytree(copy.policies / "v0002", copy.policies / "v0007")
    shutil.rmtree(copy.policies / "v0001")
    faults = faults_of(copy)
    assert faults["policies/v0007"] == "was published by no iteration"
    assert faults["policies/v0001"] in ("is missing", "is missing: it is the parent of version 2")


def test_a_marker_of_an_iteration_in_progress_that_is_gone_is_told_by_the_events(tmp_path: Path):
    run = played(tmp_path, killed_at=12)
    run.phase_file(1, "generate").unlink()
    assert faults_of(run) == {"iterations/001/phases/generate.json": "is missing"}


def test_an_event_that_cannot_be_read_is_told_by_its_line_but_not_one_that_a_crash_tore(copy: RunDirectory):
    lines = copy.events_file.read_bytes().splitlines()
    with copy.events_file.open("ab") as file:
        file.write(b'{"time": "2026-')
    assert faults_of(copy) == {}
    copy.events_file.write_bytes(b"\n".join([lines[0], lines[1].replace(b'"event"', b"'event'"), *lines[2:]]) + b"\n")
    assert faults_of(copy) == {"events.jsonl": "line 2 is no event"}


def test_a_run_of_a_version_that_recorded_no_hashes_is_looked_at_as_far_as_it_can_be(copy: RunDirectory):
    for marker in copy.path.glob("iterations/*/phases/*.json"):
        edit(marker, files={})
    for iteration in (0, 1, 2):
        copy.done_file(iteration).write_text(json.dumps({"iteration": iteration}))
    forget_hashes_in_events(copy)
    found = verify_run(copy)
    assert found.faults == []
    assert found.notes == [
        f"{copy.iteration(number)} has no hashes: it is of an earlier version" for number in (0, 1, 2)
    ]
    (copy.path / "iterations/001/attempts/part-00000.parquet").write_bytes(b"PAR1")
    assert list(faults_of(copy)) == ["iterations/001/attempts/part-00000.parquet"]


def test_damaged_questions_are_told_and_rows_are_not_compared_with_them(copy: RunDirectory):
    flip(copy.path / "data" / "train.parquet", 600)
    found = verify_run(copy)
    assert [str(fault.file.relative_to(copy.path)) for fault in found.faults] == ["data/train.parquet"]
    assert found.notes == ["rows are not compared with the questions, which cannot be read"]


def test_the_command_tells_each_fault_in_a_line_and_exits_with_1(
    copy: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    assert main(["runs", "verify", str(copy.path)]) == 0
    assert capsys.readouterr().out.startswith(f"{copy.path}: whole; ")
    flip(copy.policies / "v0002" / "model.safetensors", 9)
    (copy.policies / "v0001" / "COMPLETE").unlink()
    assert main(["runs", "verify", str(copy.path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{copy.path}/policies/v0001/COMPLETE is missing: the policy does not count without it"
    assert lines[1] == (
        f"{copy.path}/policies/v0002/model.safetensors is damaged: its SHA-256 is not that which was recorded"
    )
    assert lines[-1].startswith(f"{copy.path}: ")


def test_the_command_verifies_every_run_below_a_directory_and_prints_json(
    copy: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(copy.path, copy.path.parent / "other")
    (copy.path / "run.json").unlink()
    assert main(["runs", "verify", str(copy.path.parent), "--json"]) == 1
    other, run = json.loads(capsys.readouterr().out)
    assert (other["run"], other["faults"], other["policies"]) == (str(copy.path.parent / "other"), [], 3)
    assert run["faults"] == [{"file": str(copy.path / "run.json"), "fault": "is missing"}]


def test_where_there_is_no_run_there_is_nothing_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["runs", "verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: no run in {tmp_path}: must be a run, or hold runs\n"
    assert main(["runs", "verify", str(tmp_path / "gone")]) == 2
