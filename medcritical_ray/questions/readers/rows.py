"""The rows of CSV, JSONL, JSON and parquet files, one at a time; None stands for a row that cannot be read."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from medcritical_ray.errors import UserError
from medcritical_ray.files import parse_json

Row = dict[str, Any]

_BATCH_SIZE = 1024
_NUM_LOOKED_AT = 100
_NUM_CHARS_AT_ONCE = 2**20
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_NEVER = re.compile(r"(?!)")


def rows_of(path: Path) -> Iterator[Row | None]:
    """The rows of a file, told by its extension. Raises UserError if it is none of a table, missing or unreadable."""
    return _reader(path)(path)


def column_names(path: Path) -> list[str]:
    """The columns of a file, in the order in which they come: of CSV and parquet by its header, else those of the first
    rows. None if it is empty. Raises UserError as `rows_of` does."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _csv_header(path)
    if suffix == ".parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    first_rows = islice((row for row in rows_of(path) if row), _NUM_LOOKED_AT)
    return list(dict.fromkeys(name for row in first_rows for name in row))


def _reader(path: Path) -> Callable[[Path], Iterator[Row | None]]:
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"{path} is a directory: must be a file of questions")
    if reader is None:
        raise UserError(f"cannot tell the format of {path}: its name should end with {', '.join(readers)}")
    return reader


def _csv_rows(path: Path) -> Iterator[Row | None]:
    """Rows of a CSV file with a header, whose values may be quoted and then hold line breaks; blank lines are none."""
    with _text(path) as file:
        records = _csv_records(file)
        header = next(records, None) or []
        for values in records:
            fits = values is not None and len(values) == len(header)
            yield dict(zip(header, values, strict=True)) if values is not None and fits else None


def _csv_header(path: Path) -> list[str]:
    with _text(path) as file:
        header = next(_csv_records(file), [])
    if header is None:
        raise UserError(f"{path} has broken quoting in its header")
    return header


def _jsonl_rows(path: Path) -> Iterator[Row | None]:
    """Rows of a file with one JSON object per line. Blank lines are no rows."""
    with _text(path) as file:
        for line in file:
            if line.strip():
                yield _json_object(line)


def _json_rows(path: Path) -> Iterator[Row | None]:
    """The objects of one JSON array, or of one JSON object by their ids; or those of lines, as MedMCQA's makers have
    them. The whole file is held in memory."""
    with _text(path) as file:
        content = file.read()
    try:
        table = parse_json(content) if content.strip() else []
    except ValueError as error:
        if _json_object(content.lstrip().partition("\n")[0]) is None:
            raise UserError(f"{path} is no JSON: {error}") from None
        yield from _jsonl_rows(path)
        return
    if isinstance(table, dict):
        table = [{"id": row_id, **row} if isinstance(row, dict) else row for row_id, row in table.items()]
    if not isinstance(table, list):
        raise UserError(f"{path} is neither an array nor an object of questions")
    for row in table:
        yield row if isinstance(row, dict) else None


def _parquet_rows(path: Path) -> Iterator[Row | None]:
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_SIZE):
            yield from batch.to_pylist()


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise _missing(path) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable parquet file: {str(error).splitlines()[0]}") from None


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding=_encoding_of(path), newline="") as file:
            yield file
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def encoding_of(path: Path) -> str | None:
    """The encoding of a file's text, as people call it; None for parquet. Raises UserError if it has none."""
    if path.suffix.lower() == ".parquet":
        return None
    return {"utf-8-sig": "UTF-8", "gb18030": "GB18030"}[_encoding_of(path)]


def _encoding_of(path: Path) -> str:
    """UTF-8, with or without byte order mark, or GB18030, in which many Chinese files still are.

    Nearly any bytes are some GB18030 text; those with control characters are none that anyone wrote.
    """
    if _is_text(path, "utf-8-sig", _NEVER):
        return "utf-8-sig"
    if _is_text(path, "gb18030", _CONTROL):
        return "gb18030"
    raise UserError(f"{path} is neither UTF-8 nor GB18030 text: save it as UTF-8")


def _is_text(path: Path, encoding: str, forbidden: re.Pattern[str]) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as file:
            return not any(forbidden.search(chars) for chars in iter(lambda: file.read(_NUM_CHARS_AT_ONCE), ""))
    except UnicodeDecodeError:
        return False


def _missing(path: Path) -> UserError:
    return UserError(f"{path} does not exist")


def _json_object(line: str) -> Row | None:
    try:
        value = parse_json(line, object_pairs_hook=_object_of)
    except ValueError:
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
