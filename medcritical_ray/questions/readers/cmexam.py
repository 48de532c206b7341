r"""CMExam, the Chinese national medical licensing examination (arXiv 2306.03030), as CSV.

Columns: Question, Options, Answer, Explanation; the annotated test split has five more. All options are one string,
"A 发热\nB 咳嗽", where \n is a real line break in some editions and the two characters \ and n in others. A missing
value is an empty string or "nan".
"""

import re
from collections.abc import Mapping
from typing import Any

from medcritical_ray.questions.door import one_line_option, sorted_letters
from medcritical_ray.records import Option, Question

COLUMNS = frozenset({"Question", "Options", "Answer"})
LABELS = ("Disease Group", "Area of Competency", "Clinical Department", "Medical Discipline", "Difficulty level")

_LINE_BREAK = re.compile(r"\\n|\r\n|\r|\n")
_OPTION = re.compile(r"([A-Z])(?:\s+(.*))?")


def question_of(row: Mapping[str, Any], question_id: str) -> Question:
    """The question of a row, unchecked."""
    return Question(
        id=question_id,
        source="cmexam",
        stem=_text(row, "Question"),
        options=tuple(_option(line.strip()) for line in _text(row, "Options").split("\n") if line.strip()),
        key=sorted_letters(_text(row, "Answer")),
        explanation=_text(row, "Explanation") or None,
        labels={name: label for name in LABELS if (label := _text(row, name))},
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    """A value with real line breaks; empty if it is missing."""
    text = _LINE_BREAK.sub("\n", row.get(column, "")).strip()
    return "" if text == "nan" else text


def _option(line: str) -> Option:
    """The option on a line. A line without a letter becomes an option without one, which is refused at the door."""
    match = _OPTION.fullmatch(line)
    return one_line_option(match[1], match[2] or "") if match else Option("", line)
