"""Records on disk: a directory of parquet parts whose columns are the fields of the record's dataclass.

A part is written whole or not at all and may be written again, so that a directory that was left half done is finished
by writing its missing parts. Its pages have checksums, which are compared whenever it is read.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.files import atomic_path

Record = TypeVar("Record")

_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_PART_NAME = re.compile(r"part-(\d{5,})\.parquet")
_READ_ERRORS = (pa.ArrowException, OSError, ValueError)
"""What Arrow raises for a damaged file, UnicodeDecodeError among it."""


def schema_of(record_type: type) -> pa.Schema:
    """One column per field of a flat dataclass: str, int, float, bool or a Literal of strings, each perhaps `| None`.

    Raises TypeError for a field of any other type.
    """
    hints = get_type_hints(record_type)
    return pa.schema([_column(field.name, hints[field.name]) for field in dataclasses.fields(record_type)])


def part_path(directory: Path, index: int) -> Path:
    return directory / f"part-{index:05d}.parquet"


def write_part(directory: Path, index: int, records: Iterable[Record], record_type: type[Record]) -> Path:
    """Writes one part, in place of an earlier one of the same index. Without records it has the columns alone."""
    schema = schema_of(record_type)
    rows = list(records)
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    path = part_path(directory, index)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, write_page_checksum=True)
    return path


def read_part(path: Path, record_type: type[Record]) -> list[Record]:
    """All records of one parquet file. Raises UserError if it cannot be read or has other columns."""
    return list(_iter_file(path, record_type))


def iter_parts(directory: Path, record_type: type[Record]) -> Iterator[Record]:
    """The records of every part, in the order of the parts, a batch at a time. Raises UserError as `read_part` does."""
    for path in part_paths(directory):
        yield from _iter_file(path, record_type)


def iter_columns(directory: Path, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Some columns of every part, in the order of the parts: sooner than records. Raises UserError if one cannot be
    read."""
    for path in part_paths(directory):
        with readable(path):
            table = pq.read_table(path, columns=list(columns), page_checksum_verification=True, partitioning=None)
        yield table.to_pydict()


def part_paths(directory: Path) -> list[Path]:
    """The parts that are there, in order; none if the directory does not exist."""
    return [part_path(directory, index) for index in _part_indices(directory)]


def missing_parts(directory: Path, num_parts: int) -> list[int]:
    """The indices below `num_parts` that have yet to be written."""
    return sorted(set(range(num_parts)) - set(_part_indices(directory)))


def count_rows(directory: Path) -> int:
    """The rows of all parts, from the files' footers alone."""
    return sum(num_rows_of(path) for path in part_paths(directory))


def num_rows_of(path: Path) -> int:
    """The rows of one parquet file, from its footer alone. Raises UserError if it cannot be read."""
    with readable(path), pq.ParquetFile(path) as file:
        num_rows: int = file.metadata.num_rows
        return num_rows


def take_rows(paths: list[Path], rows: list[int]) -> pa.Table:
    """Some rows of parquet files, counted over all of them. Raises UserError, naming the first that cannot be read."""
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    format_ = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    try:
        return ds.dataset([str(path) for path in paths], format=format_).take(rows, use_threads=False)
    except _READ_ERRORS as error:
        for path in paths:
            with readable(path):
                pq.read_table(path, page_checksum_verification=True)
        raise UserError(f"{paths[0]} or a part beside it is damaged: {str(error).splitlines()[0]}") from None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """The block reads a parquet file: what is wrong with it becomes UserError, which names it."""
    try:
        yield
    except MedCriticalError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except _READ_ERRORS as error:
        raise UserError(f"{path} is no readable parquet file: {str(error).splitlines()[0]}") from None


def _column(name: str, hint: Any) -> pa.Field:
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [member for member in members if member is not NoneType]
    is_literal = get_origin(plain[0]) is Literal and all(isinstance(value, str) for value in get_args(plain[0]))
    arrow_type = pa.string() if is_literal else _ARROW_TYPES.get(plain[0])
    if len(plain) != 1 or arrow_type is None:
        raise TypeError(f"field {name} of type {hint} has no column type")
    return pa.field(name, arrow_type, nullable=NoneType in members)


def _part_indices(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(match[1]) for path in directory.iterdir() if (match := _PART_NAME.fullmatch(path.name)))


def _iter_file(path: Path, record_type: type[Record]) -> Iterator[Record]:
    expected = schema_of(record_type).names
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = file.schema_arrow.names
        if sorted(found) != sorted(expected):
            raise UserError(
                f"{path} has the columns {', '.join(found)}, not those of {record_type.__name__}: {', '.join(expected)}"
            )
        for batch in file.iter_batches(batch_size=1024):
            yield from (record_type(**row) for row in batch.to_pylist())
