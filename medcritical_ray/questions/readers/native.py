"""The project's own question files, parquet or JSONL: the fields of `records.Question` are the columns.

Options are a list of {letter, text}; labels map names to texts. id, source, explanation and labels may be missing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, field_validator

from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_path
from medcritical_ray.questions.door import one_line_option, sorted_letters
from medcritical_ray.records import Question

COLUMNS = frozenset({"stem", "options", "key"})

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("stem", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.struct({"letter": pa.string(), "text": pa.string()})), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("explanation", pa.string()),
        pa.field("labels", pa.map_(pa.string(), pa.string())),
    ]
)
_BATCH_SIZE = 1024
_PAIR = 2


class _OptionRow(BaseModel):
    model_config = ConfigDict(strict=True)

    letter: str
    text: str


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str | None = None
    source: str | None = None
    stem: str | None = None
    options: list[_OptionRow] | None = None
    key: str | None = None
    explanation: str | None = None
    labels: dict[str, str | None] | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_of_parquet(cls, labels: Any) -> Any:
        """Arrow gives a map as a list of pairs, and so do those who write such a list as JSON."""
        are_pairs = isinstance(labels, list) and all(isinstance(p, tuple | list) and len(p) == _PAIR for p in labels)
        return dict(labels) if are_pairs else labels


def question_of(row: Mapping[str, Any], question_id: str) -> Question:
    """The question of a row, unchecked. Raises pydantic.ValidationError if a value is of the wrong type."""
    values = _Row.model_validate(row)
    return Question(
        id=values.id or question_id,
        source=values.source or "native",
        stem=values.stem or "",
        options=tuple(one_line_option(option.letter, option.text) for option in values.options or []),
        key=sorted_letters(values.key or ""),
        explanation=values.explanation or None,
        labels={name: label for name, label in (values.labels or {}).items() if label is not None},
    )


def write_questions(path: Path | str, questions: Iterable[Question]) -> None:
    """Writes a .parquet or .jsonl file, whole or not at all, a batch at a time.

    Raises UserError for another extension.
    """
    path = Path(path)
    write = {".parquet": _write_parquet, ".jsonl": _write_jsonl}.get(path.suffix.lower())
    if write is None:
        raise UserError(f"cannot write questions to {path}: its name should end with .parquet or .jsonl")
    with atomic_path(path) as temporary:
        write(temporary, map(_row_of, questions))


def _row_of(question: Question) -> dict[str, Any]:
    options = [option._asdict() for option in question.options]
    return asdict(question) | {"options": options}


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, SCHEMA, write_page_checksum=True) as writer:
        while batch := list(islice(rows, _BATCH_SIZE)):
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
