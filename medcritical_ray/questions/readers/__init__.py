"""Question files of every format, read row by row."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medcritical_ray.errors import UserError
from medcritical_ray.formats import Format
from medcritical_ray.questions.door import DUPLICATE_ID, UNREADABLE_ROW, BadRow, RowFault, fault_of, of_no_known_form
from medcritical_ray.questions.readers import native, pubmedqa
from medcritical_ray.questions.readers.columns import Columns, are_numbers, first_number, listed, mapped_columns
from medcritical_ray.questions.readers.exams import EXAMS
from medcritical_ray.questions.readers.rows import Row, column_names, encoding_of, rows_of
from medcritical_ray.records import Question

ToQuestion = Callable[[Mapping[str, Any], str], Question]
"""Makes a question of a row and the id that it has if the row brings none. Raises ValueError for what it cannot be."""

_REQUIRED: dict[str, tuple[frozenset[str], ...]] = {
    "native": (native.COLUMNS,),
    **{name: (columns.required,) for name, columns in EXAMS.items()},
    "pubmedqa": pubmedqa.COLUMNS,
}
"""The columns of each format, in one or the other of its editions; formats are looked for in this order."""


def read_questions(
    path: Path | str,
    format: Format = "auto",  # noqa: A002 - the word in use
    mapping: Mapping[str, str] | None = None,
) -> Iterator[Question | BadRow]:
    """Yields a question or a bad row for every row of a file, in its order, without holding more than a few rows.

    `mapping` names the columns of a question's fields, such as {"key": "label"}: see `columns.mapped_columns`. A
    question without an id of its own is called after its file and row: "val-17". Raises UserError, at once for what is
    seen from outside and otherwise on the way, if the file is missing, unreadable, no text where it should be, or has
    other columns than its format.
    """
    path = Path(path)
    return _questions(path, rows_of(path), _to_question(path, format, mapping or {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a file is taken for: its format, the encoding of its text, and where its keys begin to count; None of a file
    that is no text, and of one whose keys are no numbers."""

    format: str
    encoding: str | None
    first_number: int | None


def how_read(path: Path, format: Format, mapping: Mapping[str, str]) -> Reading:  # noqa: A002
    """What `read_questions` takes a file for, which is no empty one. Raises UserError as it does."""
    name, columns = _taken_for(path, format, mapping, column_names(path))
    keys = [row.get(columns.key) for row in rows_of(path) if row] if columns else []
    start = first_number(keys) if are_numbers(keys) else None
    return Reading(format=name, encoding=encoding_of(path), first_number=start)


def _to_question(path: Path, format: Format, mapping: Mapping[str, str]) -> ToQuestion:  # noqa: A002
    found = column_names(path)
    if not found:
        return native.question_of  # an empty file has any format: whoever reads it sees that it is empty
    name, columns = _taken_for(path, format, mapping, found)
    if columns is None:
        return pubmedqa.question_of if name == "pubmedqa" else native.question_of
    start = first_number(row.get(columns.key) for row in rows_of(path) if row)
    return partial(columns.question_of, source=name, first_number=start)


def _taken_for(
    path: Path,
    format: Format,  # noqa: A002
    mapping: Mapping[str, str],
    found: list[str],
) -> tuple[str, Columns | None]:
    """The name of the format, and the columns unless it has a reader of its own. Raises UserError if a column is
    missing, or if no format has these."""
    if twice := [name for name, count in Counter(found).items() if name.strip() and count > 1]:
        raise UserError(f"{path} has two columns called {listed(twice)}: rename one, since a row can keep but one")
    if mapping or format == "mapped":
        return "mapped", mapped_columns(path, mapping, found)
    name = _detect(path, found) if format == "auto" else format
    _check_columns(path, found, name)
    return name, EXAMS.get(name)


def _detect(path: Path, found: list[str]) -> str:
    for name, editions in _REQUIRED.items():
        if any(columns <= set(found) for columns in editions):
            return name
    raise UserError(
        f"cannot tell the format of {path}, whose columns are {listed(found)}: name its format, or map its columns "
        "(questions.map, --map stem=… --map options=… --map key=…; where each option has one: --map options=A,B,C,D)"
    )


def _check_columns(path: Path, found: list[str], name: str) -> None:
    missing = [sorted(columns - set(found)) for columns in _REQUIRED[name]]
    if all(missing):
        raise UserError(f"{path} has no column {', '.join(missing[0])} ({name}); its columns are {listed(found)}")


def _questions(path: Path, rows: Iterable[Row | None], to_question: ToQuestion) -> Iterator[Question | BadRow]:
    ids: set[str] = set()
    for number, row in enumerate(rows, 1):
        question = _question(row, to_question, f"{path.stem}-{number}")
        fault = question if isinstance(question, str) else _fault(question, ids)
        if isinstance(question, Question) and fault is None:
            ids.add(question.id)
            yield question
        else:
            yield BadRow(file=str(path), row=number, reason=fault or UNREADABLE_ROW)


def _question(row: Row | None, to_question: ToQuestion, question_id: str) -> Question | str:
    """The question of a row, or why there is none."""
    try:
        return to_question(row, question_id) if row is not None else UNREADABLE_ROW
    except RowFault as fault:
        return str(fault)
    except ValidationError as error:
        return of_no_known_form(str(error.errors()[0]["loc"][0]))
    except ValueError:
        return UNREADABLE_ROW


def _fault(question: Question, ids: set[str]) -> str | None:
    return fault_of(question) or (DUPLICATE_ID if question.id in ids else None)
