"""Questions from any table: which of its columns hold what a question needs, in whatever form exams keep it."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcritical_ray.errors import UserError
from medcritical_ray.files import parse_json
from medcritical_ray.questions.door import AMBIGUOUS_KEY, RowFault, one_line_option, sorted_letters, told_by_field
from medcritical_ray.records import LETTERS, Option, Question, lettered

_KNOWN_NAMES: dict[str, tuple[str, ...]] = {
    "stem": ("stem", "question", "Question"),
    "options": ("options", "Options", "option", "choices"),
    "key": ("key", "answer_idx", "answer", "Answer", "label"),
    "explanation": ("explanation", "Explanation", "exp", "rationale"),
    "id": ("id",),
}
"""Where each field is looked for if a mapping does not name its column."""

_FIELDS = ("stem", "options", "key", "explanation", "id", "labels")
"""What a mapping may name."""
_OF_SEVERAL_COLUMNS = ("options", "labels")

_NUM_LISTED, _NUM_LISTED_CHARS = 30, 40

_LINE_BREAK = re.compile(r"\\n|\r\n|\r|\n")
_LETTERED_LINE = re.compile(r"\(?([A-Z])(?:[.)、:．：]\s*|\s+)(.*)|([A-Z])")
_NO_LETTER = "?"
_LETTERS_ONLY = re.compile(r"[A-J](?:[\s,;、/&+]*[A-J])*")
_LETTER_NAMES, _TEXT_NAMES = ("letter", "key", "label"), ("text", "content", "value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of a table of questions.

    `options` is one column that holds them all (a mapping of letters to texts, a list, or lines that begin with
    letters), or one column for each. The key may be letters, an option's text, or the number of an option, counted from
    0 or 1: a file in which a 0 stands counts from 0. Labels are columns to break results down by.
    """

    stem: str
    options: tuple[str, ...]
    key: str
    explanation: str | None = None
    id: str | None = None
    labels: tuple[str, ...] = ()
    stem_end: str | None = None
    """What the stem ends before, where the options are told again in it."""
    has_escaped_breaks: bool = False
    """Whether a backslash and an n in stem and explanation are a line break; elsewhere they may begin a formula."""
    key_is_number: bool = False
    """Whether a number is never an option's text, even where options are numbers."""

    @property
    def required(self) -> frozenset[str]:
        return frozenset({self.stem, *self.options, self.key})

    def question_of(self, row: Mapping[str, Any], question_id: str, source: str, first_number: int) -> Question:
        """The question of a row, unchecked. Raises RowFault if a value has a form that is not known, or if its key may
        be either of two options."""
        with told_by_field("options"):
            options = _options(row, self.options)
        key = row.get(self.key)
        if not self.key_is_number and _is_ambiguous(key, options, first_number):
            raise RowFault(AMBIGUOUS_KEY)
        with told_by_field("key"):
            letters = key_letters(key, options, first_number)
        with told_by_field("stem"):
            stem = self._prose(row, self.stem).partition(self.stem_end or "\0")[0].strip()
        with told_by_field("id, explanation or label"):
            return Question(
                id=_text(row.get(self.id)) if self.id and row.get(self.id) not in (None, "") else question_id,
                source=source,
                stem=stem,
                options=options,
                key=letters,
                explanation=(self._prose(row, self.explanation) or None) if self.explanation else None,
                labels={name: label for name in self.labels if (label := _text(row.get(name)))},
            )

    def _prose(self, row: Mapping[str, Any], column: str) -> str:
        text = _text(row.get(column))
        return _LINE_BREAK.sub("\n", text).strip() if self.has_escaped_breaks else text


def mapped_columns(path: Path, mapping: Mapping[str, str], found: list[str]) -> Columns:
    """The columns of a file that a mapping of fields to columns names. A field that it leaves out is looked for by
    usual names.

    `options` and `labels` may name several columns, separated by commas. Raises UserError, naming the columns that
    exist, if one does not, or if a field has none.
    """
    unknown = sorted(set(mapping) - set(_FIELDS))
    if unknown:
        raise UserError(f"a question has no field {', '.join(unknown)}: a mapping may name {', '.join(_FIELDS)}")
    named = {field: _split(columns) for field, columns in mapping.items()}
    for field, columns in named.items():
        if not columns or (len(columns) > 1 and field not in _OF_SEVERAL_COLUMNS):
            raise UserError(f"{mapping[field]!r} cannot be mapped to {field}: must name one column of {path}")
    missing = sorted({column for columns in named.values() for column in columns} - set(found))
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)} to map; its columns are {listed(found)}")
    for field, names in _KNOWN_NAMES.items():
        column = next((name for name in names if name in found), None)
        if column:
            named.setdefault(field, (column,))
    for field in ("stem", "options", "key"):
        if not named.get(field):
            raise UserError(
                f"no column of {path} holds the {field}: {_how_to_map(field)}; its columns are {listed(found)}"
            )
    return Columns(
        stem=named["stem"][0],
        options=named["options"],
        key=named["key"][0],
        explanation=named.get("explanation", (None,))[0],
        id=named.get("id", (None,))[0],
        labels=named.get("labels", ()),
    )


def listed(columns: Sequence[str]) -> str:
    """Columns by their names, of which a file may have any number, as long as it likes."""
    names = ", ".join(
        name if len(name) <= _NUM_LISTED_CHARS else f"{name[:_NUM_LISTED_CHARS]}…" for name in columns[:_NUM_LISTED]
    )
    return names + (f" and {len(columns) - _NUM_LISTED:,} more" if len(columns) > _NUM_LISTED else "")


def _how_to_map(field: str) -> str:
    if field == "options":
        return "map one (--map options=…), or one for each option (--map options=A,B,C,D)"
    return f"map one (--map {field}=…)"


def first_number(values: Iterable[Any]) -> int:
    """Where a file whose keys are numbers of options begins to count: at 0 if a 0 is among them, else at 1."""
    return 0 if any(_number(value) == 0 for value in values) else 1


def key_letters(value: Any, options: tuple[Option, ...], first: int) -> str:
    """The letters of a key, "" if there are none.

    It may be "C", "A, C", "Ａ", ["A", "C"], an option's text, or an option's number; a negative number is no key.
    What is none of these becomes "?", which is no option.
    """
    if isinstance(value, list):
        return sorted_letters("".join(key_letters(each, options, first) for each in value))
    number = _number(value)
    if number is not None and number < 0:
        return ""
    if number is not None:
        return options[number - first].letter if 0 <= number - first < len(options) else _NO_LETTER
    text = _text(value)
    letters = unicodedata.normalize("NFKC", text).upper()
    if _LETTERS_ONLY.fullmatch(letters):
        return sorted_letters(re.sub(r"[^A-J]", "", letters))
    return next((option.letter for option in options if option.text == " ".join(text.split())), text and _NO_LETTER)


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether some of a file's keys are numbers of options."""
    return any(_number(value) is not None for value in values)


def _is_ambiguous(key: Any, options: tuple[Option, ...], first: int) -> bool:
    """Whether a key is the number of one option and the text of another: "3" of 2, 3, 4 and 5."""
    of_text = [option.letter for option in options if option.text == str(key).strip()]
    return _number(key) is not None and bool(of_text) and key_letters(key, options, first) not in of_text


def _options(row: Mapping[str, Any], columns: tuple[str, ...]) -> tuple[Option, ...]:
    if len(columns) > 1:
        texts = [_text(row.get(column)) for column in columns]
        return tuple(
            one_line_option(letter, text) for letter, text in zip(LETTERS, texts, strict=False) if text.strip()
        )
    return tuple(one_line_option(letter, text) for letter, text in _letters_and_texts(row.get(columns[0])))


def _letters_and_texts(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list):
        if all(isinstance(each, Mapping) for each in value):
            return [(_first(each, _LETTER_NAMES), _first(each, _TEXT_NAMES)) for each in value]
        return [tuple(option) for option in lettered([_text(each) for each in value])]  # type: ignore[misc]
    if value is None:
        return []
    raise ValueError(f"options are no text, list or mapping: {type(value).__name__}")


def _of_text(text: str) -> list[tuple[str, str]]:
    """Options in JSON, or on lines of their own."""
    if text.lstrip().startswith(("{", "[")):
        return _letters_and_texts(parse_json(text))
    return [_of_line(line.strip()) for line in _LINE_BREAK.sub("\n", text).split("\n") if line.strip()]


def _of_line(line: str) -> tuple[str, str]:
    """An option's letter and text. A line without a letter is an option without one, which is refused at the door."""
    match = _LETTERED_LINE.fullmatch(line)
    return (match[1] or match[3], match[2] or "") if match else ("", line)


def _of_mapping(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Letters and texts: {"A": "rest"}, or {"label": ["A"], "text": ["rest"]}. A letter without text is no option."""
    lists = next(((value[a], value[b]) for a in _LETTER_NAMES for b in _TEXT_NAMES if a in value and b in value), None)
    if lists and all(isinstance(each, list) for each in lists):
        return [(_text(letter), _text(text)) for letter, text in zip(*lists, strict=True)]
    return [(letter, _text(text)) for letter, text in value.items() if _text(text).strip()]


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((_text(value[name]) for name in names if name in value), "")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = value.strip()
        return "" if text == "nan" else text
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "" if math.isnan(value) else f"{value:g}"
    raise ValueError(f"a text was expected, not {type(value).__name__}")


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,3}(\.0)?", value.strip()):
        return int(float(value))
    return value if isinstance(value, int) else None


def _split(columns: str) -> tuple[str, ...]:
    return tuple(column.strip() for column in columns.split(",") if column.strip())
