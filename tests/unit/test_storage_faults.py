"""What a run does when its disk is full, or a file is torn, flipped or gone: it says which, adopts nothing, resumes."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import RESUME_COMMAND, SmallRun, copies_in_place_of_links, small_config

from jobs.self_play import keep_report, play_to_the_end
from medcritical_ray.engines.served import StaleVersion, check_weights, served_policy
from medcritical_ray.engines.weights import read_blobs
from medcritical_ray.errors import StorageFailed, UserError
from medcritical_ray.files import atomic_directory, atomic_path, stored, write_json
from medcritical_ray.records import Demonstration
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import Policy, PolicyStore
from medcritical_ray.run.tables import read_part, take_rows, write_part
from medcritical_ray.run.verification import verify_run
from medcritical_ray.store.node_copies import bring_whole

TESTS = Path(__file__).parents[1]
DEMONSTRATIONS = [
    Demonstration(question_id=f"q{n}", task="solve", prompt="Why? " * n, response="Answer: aspirin (C)")
    for n in range(12)
]


def rows_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every part of a run's iterations, by the part's path."""
    files = sorted((path / "iterations").rglob("*.parquet"))
    return {str(file.relative_to(path)): pq.read_table(file).to_pylist() for file in files}


@pytest.fixture(autouse=True)
def damage_is_done_to_one_name_of_a_file() -> Iterator[None]:
    with copies_in_place_of_links():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return rows_of(played(SmallRun(tmp_path_factory.mktemp("undisturbed"), small_config())).path)


def played(run: SmallRun, **ends: int) -> RunDirectory:
    game = run.open(**ends)
    with game.run:
        if ends:
            with pytest.raises(KeyboardInterrupt):
                play_to_the_end(game)
        else:
            play_to_the_end(game)
    return game.run


def flip(file: Path) -> bytes:
    """Flips a bit in the middle of a file, whatever other names it has; returns what was there."""
    content = file.read_bytes()
    position = len(content) // 2
    file.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
    return content


def attempts_on_a_full_disk(root: Path, *command: str) -> list[dict[str, Any]]:
    """What tests/full_disk.py says of each attempt to play the run."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    words = [*command[:-1], sys.executable, str(TESTS / "full_disk.py"), str(root), command[-1]]
    done = subprocess.run(words, env=environment, text=True, capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_attempts(attempts: list[dict[str, Any]], run: Path, cause: str) -> None:
    """Each failed attempt but the last names a file of the run and the cause, in a line, and left the run whole."""
    *failed, last = attempts
    assert last == {"failure": None, "faults": [], "versions": [0, 1, 2]}
    assert len(failed) >= 6
    phase = r"((stage 1|iteration [12]), \w+: )?"
    resume = rf"(; resume with: {RESUME_COMMAND})?"
    for attempt in failed:
        assert attempt["faults"] == []
        pattern = rf"{phase}({run}\S* cannot be written: {cause}{resume}|{run} cannot be written \({cause}\).*)"
        assert re.fullmatch(pattern, attempt["failure"]), attempt["failure"]


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs user namespaces, to mount a small disk",
)
def test_a_run_whose_disk_fills_up_again_and_again_ends_with_the_same_rows(tmp_path: Path):
    attempts = attempts_on_a_full_disk(tmp_path, "unshare", "-rm", "disk")
    check_attempts(attempts, tmp_path / "small", "No space left on device")


def test_a_run_whose_files_may_not_grow_ends_with_the_same_rows(
    undisturbed: dict[str, list[dict[str, Any]]], tmp_path: Path
):
    attempts = attempts_on_a_full_disk(tmp_path, "limit")
    check_attempts(attempts, tmp_path / "small", "File too large")
    assert rows_of(tmp_path / "small") == undisturbed


@pytest.mark.parametrize("name", ["value.json", "part-00000.parquet"])
def test_what_the_disk_does_not_take_is_named_and_leaves_what_was_there(tmp_path: Path, monkeypatch, name: str):
    """/dev/full is a disk without space; it stands where the new content is written before it takes its place."""
    file = tmp_path / name
    file.write_bytes(b"as it was")
    (tmp_path / f".{name}.ab.tmp").symlink_to("/dev/full")
    monkeypatch.setattr("medcritical_ray.files._hidden_beside", lambda path: tmp_path / f".{name}.ab.tmp")
    write = {
        "value.json": lambda: write_json(file, {"some": "thing"}),
        "part-00000.parquet": lambda: write_part(tmp_path, 0, DEMONSTRATIONS, Demonstration),
    }
    with pytest.raises(StorageFailed) as caught:
        write[name]()
    assert str(caught.value) == f"{file} cannot be written: No space left on device"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert file.read_bytes() == b"as it was"


@pytest.mark.parametrize(("name", "append"), [("events.jsonl", "event"), ("steps", "step")])
def test_a_log_that_cannot_grow_is_named(tmp_path: Path, name: str, append: str):
    run = RunDirectory(tmp_path)
    run.forget_steps(1, "train")
    file = tmp_path / "events.jsonl" if append == "event" else tmp_path / "iterations/001/steps/train.jsonl"
    file.symlink_to("/dev/full")
    with pytest.raises(StorageFailed, match=rf"^{file} cannot be written: No space left on device$"):
        run.append_event("tried") if append == "event" else run.append_step(1, "train", {"loss": 0.5})


def test_a_policy_that_the_disk_does_not_take_is_none_and_the_one_before_stays(tmp_path: Path, monkeypatch):
    store, model = PolicyStore(tmp_path / "policies"), tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    store.publish(0, model, parent=None, metrics={})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr("shutil.copy2", full)
        with pytest.raises(StorageFailed, match=r"policies/v0001/\S+ cannot be written: No space left on device$"):
            store.publish(1, model, parent=0, metrics={})
    assert [entry.name for entry in store.root.iterdir()] == ["v0000"]
    store.verify(0)
    assert store.publish(1, model, parent=0, metrics={}).version == 1


def test_the_error_of_a_tree_of_copies_is_one_line(tmp_path: Path):
    causes = [("a", "b", f"[Errno {errno.ENOSPC}] No space left on device: 'b'"), ("c", "d", "the same")]
    with (
        pytest.raises(StorageFailed, match=r"run cannot be written: No space left on device$"),
        stored(tmp_path / "run"),
    ):
        raise shutil.Error(causes)


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        (tmp_path / "source").read_bytes()
    with pytest.raises(OSError, match="curl") as caught, atomic_directory(tmp_path / "directory"):
        raise OSError("When reading information for key 'x': AWS Error NETWORK_CONNECTION (curl 28)")
    assert type(caught.value) is OSError
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_the_disk_does_not_take_hides_nothing_of_what_ended_the_run(tmp_path: Path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise StorageFailed("x cannot be written: No space left on device")

    monkeypatch.setattr("medcritical_ray.report.write_report", full)
    monkeypatch.setattr(RunDirectory, "append_event", full)
    keep_report(RunDirectory(tmp_path))


@pytest.mark.parametrize(
    ("killed_at", "name", "where"),
    [
        (3, "iterations/000/teaching/part-00000.parquet", "stage 1, draft"),
        (4, "iterations/000/drafted/model.safetensors", "stage 1, generate"),
        (5, "iterations/000/attempts/part-00000.parquet", "stage 1, correct"),
        (6, "iterations/000/lessons/part-00000.parquet", "stage 1, train"),
        (7, "iterations/000/trained/config.json", "stage 1, publish"),
        (11, "iterations/001/attempts/part-00001.parquet", "iteration 1, correct"),
        (12, "iterations/001/corrections/part-00000.parquet", "iteration 1, pair"),
        (13, "iterations/001/pairs/part-00000.parquet", "iteration 1, train"),
        (14, "iterations/001/trained/model.safetensors", "iteration 1, publish"),
    ],
)
def test_a_phase_reads_nothing_damaged_and_goes_on_once_the_file_is_restored(
    undisturbed: dict[str, list[dict[str, Any]]], tmp_path: Path, killed_at: int, name: str, where: str
):
    run = SmallRun(tmp_path, small_config())
    path = played(run, killed_at=killed_at).path
    before = PolicyStore(path / "policies").versions()
    content = flip(path / name)
    with pytest.raises(UserError) as caught:
        played(run)
    phase = next(marker.stem for marker in path.glob("iterations/*/phases/*.json") if name in marker.read_text())
    marker = path / name.rpartition("/")[0].rpartition("/")[0] / "phases" / f"{phase}.json"
    assert str(caught.value).startswith(
        f"{where}: {path / name} is damaged: its SHA-256 is not that which was recorded: restore it; or remove it and "
        f"{marker}: then resuming writes it again; resume with: {RESUME_COMMAND}"
    )
    assert PolicyStore(path / "policies").versions() == before
    (path / name).write_bytes(content)
    played(run)
    assert rows_of(path) == undisturbed


@pytest.mark.parametrize(
    ("killed_at", "name", "marker"),
    [
        (12, "iterations/001/attempts/part-00001.parquet", "iterations/001/phases/generate.json"),
        (13, "iterations/001/pairs/part-00000.parquet", "iterations/001/phases/pair.json"),
        (14, "iterations/001/trained/model.safetensors", "iterations/001/phases/train.json"),
    ],
)
def test_a_damaged_file_that_is_removed_with_its_phases_marker_is_written_again(
    undisturbed: dict[str, list[dict[str, Any]]], tmp_path: Path, killed_at: int, name: str, marker: str
):
    run = SmallRun(tmp_path, small_config())
    path = played(run, killed_at=killed_at).path
    flip(path / name)
    for file in (path / name, path / marker):
        file.unlink()
    played(run)
    assert rows_of(path) == undisturbed
    assert verify_run(RunDirectory(path)).faults == []


@pytest.mark.parametrize("killed_at", [12, 15, 16, 17])
def test_a_marker_that_is_gone_has_its_phase_done_again_with_the_same_rows(
    undisturbed: dict[str, list[dict[str, Any]]], tmp_path: Path, killed_at: int
):
    run = SmallRun(tmp_path, small_config())
    path = played(run, killed_at=killed_at).path
    phases = sorted((path / "iterations/001/phases").iterdir(), key=lambda marker: marker.stat().st_mtime_ns)
    phases[-1].unlink()
    with suppress(FileNotFoundError):
        (path / "iterations/001/DONE").unlink()
    played(run)
    assert rows_of(path) == undisturbed
    assert verify_run(RunDirectory(path)).faults == []


def test_a_policy_whose_completion_marker_is_gone_is_not_played(tmp_path: Path):
    run = SmallRun(tmp_path, small_config())
    path = played(run, killed_at=15).path
    (path / "policies/v0001/COMPLETE").unlink()
    with pytest.raises(UserError, match=r"v0001 is no complete policy; complete versions in \S+policies: v0000$"):
        played(run)
    PolicyStore(path / "policies").verify(0)
    write_json(path / "policies/v0001/COMPLETE", {"version": 1})
    played(run)


def test_answers_that_were_damaged_decide_nothing(tmp_path: Path):
    run = SmallRun(tmp_path, small_config(run={"num_iterations": 1}))
    path = played(run).path
    (path / "iterations/001/DONE").unlink()
    (path / "summary.json").unlink()
    flip(path / "iterations/000/evaluation/dev/answers/part-00000.parquet")
    with pytest.raises(UserError, match=r"000/evaluation/dev/answers/part-00000\.parquet is damaged"):
        played(run)
    assert not (path / "iterations/001/DONE").exists()


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return PolicyStore(tmp_path / "policies").publish(3, model, parent=None, metrics={})


def test_weights_are_read_only_if_they_are_those_of_the_manifest(policy: Policy):
    [blob] = read_blobs(policy.path)
    assert np.array_equal(blob[:3], [0, 1, 2])
    flip(policy.path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"v0003/model\.safetensors is damaged: its SHA-256 is not that of the manifest"
    ):
        read_blobs(policy.path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_no_worker_trains_on_from_a_damaged_policy(policy: Policy, name: str):
    bring_whole(policy.path, None)
    flip(policy.path / name)
    with pytest.raises(UserError, match=rf"v0003/{name} is damaged"):
        bring_whole(policy.path, None)


def test_no_engine_takes_weights_other_than_the_driver_knows(policy: Policy):
    served = served_policy(3, policy.path)
    check_weights(served)
    flip(policy.path / "model.safetensors")
    check_weights(served, below=policy.path.parent / "v0004")
    with pytest.raises(StaleVersion, match=r"v0003/model\.safetensors on \S+ is not that of policy version 3"):
        check_weights(served, below=policy.path)


def test_an_adapter_is_not_trained_on_a_damaged_base(policy: Policy, tmp_path: Path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"small")
    store = PolicyStore(policy.path.parent)
    published = store.publish(4, adapter, parent=3, metrics={}, kind="adapter", base="v0003")
    bring_whole(published.path, None)
    flip(policy.path / "model.safetensors")
    with pytest.raises(UserError, match=r"v0003/model\.safetensors is damaged"):
        bring_whole(published.path, None)


def test_whatever_byte_of_a_part_is_flipped_reading_ends_in_rows_or_names_the_part(tmp_path: Path):
    part = write_part(tmp_path, 0, DEMONSTRATIONS, Demonstration)
    content = part.read_bytes()
    outcomes: Counter[str] = Counter()
    for position in range(len(content)):
        part.write_bytes(content[:position] + bytes([content[position] ^ 8]) + content[position + 1 :])
        for read in (lambda: read_part(part, Demonstration), lambda: take_rows([part], [0, 11])):
            try:
                read()
            except UserError as error:
                outcomes["named" if str(error).startswith(f"{part} ") else "told"] += 1
    assert outcomes["told"] == 0
    assert outcomes["named"] > len(content)  # of twice as many


def test_hardly_a_flipped_byte_changes_rows_unnoticed_before_the_hash_of_the_file_is_looked_at(tmp_path: Path):
    """Checksums are those of pages: a footer, large in so small a file, has none."""
    part = write_part(tmp_path, 0, DEMONSTRATIONS, Demonstration)
    content = part.read_bytes()
    changed = 0
    for position in range(len(content)):
        part.write_bytes(content[:position] + bytes([content[position] ^ 8]) + content[position + 1 :])
        with suppress(UserError):
            changed += read_part(part, Demonstration) != DEMONSTRATIONS
    assert changed < 0.02 * len(content)


@pytest.mark.parametrize("size", [0, 4, 100, -9, -1])
def test_a_torn_part_is_named_by_whoever_reads_it(tmp_path: Path, size: int):
    part = write_part(tmp_path, 0, DEMONSTRATIONS, Demonstration)
    whole = write_part(tmp_path, 1, DEMONSTRATIONS, Demonstration)
    part.write_bytes(part.read_bytes()[:size])
    with pytest.raises(UserError, match=r"part-00000\.parquet is no readable parquet file"):
        read_part(part, Demonstration)
    with pytest.raises(UserError, match=r"part-00000\.parquet is no readable parquet file"):
        take_rows([whole, part], [20])
