"""Question files of every format, read row by row."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from medcritical_ray.errors import UserError
from medcritical_ray.questions.door import DUPLICATE_ID, UNREADABLE_ROW, BadRow, fault_of
from medcritical_ray.questions.readers import cmexam, medqa, native
from medcritical_ray.questions.readers.rows import Row, csv_rows, jsonl_rows, parquet_rows
from medcritical_ray.records import Question

Format = Literal["auto", "cmexam", "medqa", "native"]
"""`auto` tells the format from the file's extension and columns."""

ToQuestion = Callable[[Mapping[str, Any], str], Question]
"""Makes a question of a row and the id that it has if the row brings none. Raises ValidationError for wrong types."""

_TO_QUESTION: dict[Format, ToQuestion] = {
    "cmexam": cmexam.question_of,
    "medqa": medqa.question_of,
    "native": native.question_of,
}


def read_questions(path: Path | str, format: Format = "auto") -> Iterator[Question | BadRow]:  # noqa: A002 - the word in use
    """Yields a question or a bad row for every row of a file, in its order, without holding more than a few rows.

    A question without an id of its own is called after its file and row: "val-17". Raises UserError, at once for what
    is seen from outside and otherwise on the way, if the file is missing, unreadable, not UTF-8 text where it should
    be, or has other columns than its format.
    """
    path = Path(path)
    found = _detect(path) if format == "auto" else format
    return _questions(path, _rows(path, found), _TO_QUESTION[found])


def _detect(path: Path) -> Format:
    match path.suffix.lower():
        case ".csv":
            return "cmexam"
        case ".parquet":
            return "native"
        case ".jsonl":
            return _detect_jsonl(path)
    raise UserError(f"cannot tell the format of {path}: its name should end with .csv, .jsonl or .parquet")


def _detect_jsonl(path: Path) -> Format:
    num_rows = 0
    for num_rows, row in enumerate(jsonl_rows(path), 1):  # noqa: B007 - counted for what comes after the loop
        keys = set(row or ())
        if keys >= medqa.COLUMNS:
            return "medqa"
        if keys >= native.COLUMNS:
            return "native"
    if num_rows == 0:
        return "native"  # an empty file has any format: whoever reads it sees that it is empty
    raise UserError(
        f"cannot tell the format of {path}: no row has the keys {', '.join(sorted(medqa.COLUMNS))} (medqa) "
        f"or {', '.join(sorted(native.COLUMNS))} (native)"
    )


def _rows(path: Path, found: Format) -> Iterator[Row | None]:
    if found == "cmexam":
        return csv_rows(path, cmexam.COLUMNS)
    if found == "native" and path.suffix.lower() == ".parquet":
        return parquet_rows(path, native.COLUMNS)
    return jsonl_rows(path)


def _questions(path: Path, rows: Iterable[Row | None], to_question: ToQuestion) -> Iterator[Question | BadRow]:
    ids: set[str] = set()
    for number, row in enumerate(rows, 1):
        question = _question(row, to_question, f"{path.stem}-{number}")
        reason = _fault(question, ids)
        if question is None or reason:
            yield BadRow(file=str(path), row=number, reason=reason or UNREADABLE_ROW)
        else:
            ids.add(question.id)
            yield question


def _question(row: Row | None, to_question: ToQuestion, question_id: str) -> Question | None:
    try:
        return to_question(row, question_id) if row is not None else None
    except ValidationError:
        return None


def _fault(question: Question | None, ids: set[str]) -> str | None:
    if question is None:
        return UNREADABLE_ROW
    return fault_of(question) or (DUPLICATE_ID if question.id in ids else None)
