"""MedQA, questions in the style of the USMLE (arXiv 2009.13081), as JSONL.

Keys: question, options (letter -> text), answer_idx (the right letter), answer (its text), meta_info (the exam's step).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from medcritical_ray.questions.door import one_line_option, sorted_letters
from medcritical_ray.records import Question

COLUMNS = frozenset({"question", "options", "answer_idx"})


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    question: str | None = None
    options: dict[str, str] | None = None
    answer_idx: str | None = None
    meta_info: str | None = None


def question_of(row: Mapping[str, Any], question_id: str) -> Question:
    """The question of a row, unchecked. Raises pydantic.ValidationError if a value is of the wrong type."""
    values = _Row.model_validate(row)
    return Question(
        id=question_id,
        source="medqa",
        stem=(values.question or "").strip(),
        options=tuple(one_line_option(letter, text) for letter, text in (values.options or {}).items()),
        key=sorted_letters((values.answer_idx or "").strip()),
        labels={"meta_info": values.meta_info} if values.meta_info else {},
    )
