"""What of a run was lost, doubled or changed, beside the same run undisturbed; and whether its policies hang together.

On the CPU, text is reproducible row by row, so both have the same rows: questions, demonstrations, attempts,
corrections, reviews, pairs, evaluations, and the steps of trainings.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import Manifest, PolicyStore
from medcritical_ray.store.remote import is_hidden

KEY = ("iteration", "question_id", "id", "task", "attempt", "sample", "source", "step")
"""The columns that make up a row's key, in tables that have them. Demonstrations alone have no key of their own: a
question may have several of a task."""

Row = dict[str, Any]
Rows = Counter[tuple[str, str, str]]
"""Table, key and content of a row -> how often it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Of the `num_expected` rows of the undisturbed run, `num_lost` are not in the other, and `num_changed` are there
    with another content. The other has `num_doubled` more than it should. `broken` says what is wrong with its
    iterations and policies."""

    num_expected: int
    num_lost: int
    num_doubled: int
    num_changed: int
    broken: tuple[str, ...]

    @property
    def text(self) -> str:
        found = f"{self.num_lost} lost, {self.num_doubled} doubled, {self.num_changed} changed"
        return "; ".join((f"of {self.num_expected} rows {found}", *self.broken))


def compare_runs(undisturbed: RunDirectory, other: RunDirectory) -> Comparison:
    """The undisturbed run is finished and whole; the other may be in any state."""
    expected, found = _rows(undisturbed), _rows(other)
    lost = _by_key(expected) - _by_key(found)
    doubled = _by_key(found) - _by_key(expected)
    return Comparison(
        num_expected=expected.total(),
        num_lost=lost.total(),
        num_doubled=doubled.total(),
        num_changed=(expected - found).total() - lost.total(),
        broken=tuple(_broken(undisturbed, other)),
    )


def _rows(run: RunDirectory) -> Rows:
    return Counter(
        (table, _text({name: row[name] for name in KEY if name in row}), _text(row)) for table, row in _read(run)
    )


def _by_key(rows: Rows) -> Counter[tuple[str, str]]:
    keys: Counter[tuple[str, str]] = Counter()
    for (table, key, _), number in rows.items():
        keys[table, key] += number
    return keys


def _text(row: Row) -> str:
    return json.dumps(row, sort_keys=True)


def _read(run: RunDirectory) -> Iterator[tuple[str, Row]]:
    """The rows of a run, each with its table: the directory of parts, or the file, that it stands in."""
    for path in sorted(run.path.rglob("*.parquet")):
        name = path.relative_to(run.path)
        if not is_hidden(name.as_posix()):
            table = str(name.parent if name.name.startswith("part-") else name)
            yield from ((table, row) for row in _rows_of(path))
    for path in sorted(run.path.glob("iterations/*/steps/*.jsonl")):
        table = str(path.relative_to(run.path))
        yield from ((table, step) for step in run.steps(int(path.parts[-3]), path.stem))


def _rows_of(path: Path) -> list[Row]:
    """None of a file that cannot be read: they are lost."""
    try:
        rows: list[Row] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError):
        return []
    return rows


def _broken(undisturbed: RunDirectory, other: RunDirectory) -> Iterator[str]:
    for iteration in range(len(list((undisturbed.path / "iterations").iterdir()))):
        if not other.is_finished(iteration):
            yield f"iteration {iteration} is not finished"
        elif (adopted := _adopted(other, iteration)) != _adopted(undisturbed, iteration):
            yield f"iteration {iteration} adopted version {adopted}, not {_adopted(undisturbed, iteration)}"
    expected, found = PolicyStore(undisturbed.policies), PolicyStore(other.policies)
    if found.versions() != expected.versions():
        yield f"the versions are {found.versions()}, not {expected.versions()}"
    for version in sorted({*found.versions()} & {*expected.versions()}):
        yield from _broken_policy(expected, found, version)


def _broken_policy(expected: PolicyStore, found: PolicyStore, version: int) -> Iterator[str]:
    try:
        found.verify(version)
        policy = found.get(version).manifest
    except UserError as error:
        yield str(error)
        return
    wanted = expected.get(version).manifest
    if policy.parent != wanted.parent:
        yield f"the parent of version {version} is {policy.parent}, not {wanted.parent}"
    if _weights(policy) != _weights(wanted):
        yield f"version {version} has other weights"


def _adopted(run: RunDirectory, iteration: int) -> int:
    version: int = run.metrics(iteration)["adopted_version"]
    return version


def _weights(manifest: Manifest) -> dict[str, str]:
    return {name: digest for name, digest in manifest.files.items() if name.endswith(".safetensors")}
