"""The rows of CSV, JSONL and parquet files, one at a time; None stands for a row that cannot be read."""

import csv
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from medcritical_ray.errors import UserError

Row = dict[str, Any]

_BATCH_SIZE = 1024


def csv_rows(path: Path, required: frozenset[str]) -> Iterator[Row | None]:
    """Rows of a CSV file with a header, whose values may be quoted and then hold line breaks. Blank lines are no rows.

    Raises UserError if the header cannot be read or lacks a required column; an empty file has no rows.
    """
    with _text(path) as file:
        records = _csv_records(file)
        header = next(records, [])
        if header is None:
            raise UserError(f"{path} has broken quoting in its header")
        if header:
            _check_columns(path, header, required)
        for values in records:
            fits = values is not None and len(values) == len(header)
            yield dict(zip(header, values, strict=True)) if values is not None and fits else None


def jsonl_rows(path: Path) -> Iterator[Row | None]:
    """Rows of a file with one JSON object per line. Blank lines are no rows."""
    with _text(path) as file:
        for line in file:
            if line.strip():
                yield _json_object(line)


def parquet_rows(path: Path, required: frozenset[str]) -> Iterator[Row]:
    """Rows of a parquet file. Raises UserError if a required column is missing."""
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, required)
            for batch in file.iter_batches(batch_size=_BATCH_SIZE):
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise _missing(path) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable parquet file: {str(error).splitlines()[0]}") from None


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text: save it as UTF-8, with or without byte order mark") from None


def _missing(path: Path) -> UserError:
    return UserError(f"{path} does not exist")


def _check_columns(path: Path, found: list[str], required: frozenset[str]) -> None:
    missing = sorted(required - set(found))
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(found)}")


def _json_object(line: str) -> Row | None:
    try:
        value = json.loads(line, object_pairs_hook=_object_of)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _object_of(pairs: list[tuple[str, Any]]) -> Row:
    """An object that names a key twice is refused, since one of two options would get lost."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


class _Lines:
    """Lines that remembers those it gave out for the present record, and can take back all but the first of them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._returned: deque[str] = deque()
        self._given: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._file)
        self._given.append(line)
        return line

    def start_record(self) -> None:
        self._given.clear()

    def take_back(self) -> None:
        self._returned.extendleft(reversed(self._given[1:]))


def _csv_records(file: TextIO) -> Iterator[list[str] | None]:
    """The records of a CSV file, without blank ones; None for a line with broken quoting.

    A quote that is never closed would swallow the records after it, so reading goes on at the very next line.
    """
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start_record()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            lines.take_back()
            yield None
            continue
        if record:
            yield record
