"""PubMedQA (arXiv 1909.06146): does an abstract answer its question with yes, no or maybe?

The authors' JSON has one object by PubMed id with QUESTION, CONTEXTS, LONG_ANSWER and final_decision; tables on the
Hugging Face Hub have question, context (with contexts), long_answer and final_decision.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from medcritical_ray.records import Question, lettered

COLUMNS = (frozenset({"QUESTION", "CONTEXTS", "final_decision"}), frozenset({"question", "context", "final_decision"}))
_ANSWERS = ["yes", "no", "maybe"]


class _Context(BaseModel):
    model_config = ConfigDict(strict=True)

    contexts: list[str]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    question: str | None = None
    context: _Context | None = None
    long_answer: str | None = None
    final_decision: str | None = None
    id: str | int | None = None


def question_of(row: Mapping[str, Any], question_id: str) -> Question:
    """The question of a row, unchecked: the abstract's sections, then what is asked. Raises pydantic.ValidationError if
    a value is of the wrong type."""
    names = {"QUESTION": "question", "LONG_ANSWER": "long_answer", "pubid": "id"}
    values = {names.get(name, name): value for name, value in row.items()}
    if "CONTEXTS" in row:
        values["context"] = {"contexts": row["CONTEXTS"]}
    found = _Row.model_validate(values)
    sections = found.context.contexts if found.context else []
    options = lettered(_ANSWERS)
    decision = (found.final_decision or "").strip().lower()
    return Question(
        id=str(found.id) if found.id is not None else question_id,
        source="pubmedqa",
        stem="\n".join([*sections, found.question.strip()]) if found.question else "",
        options=options,
        key=next((option.letter for option in options if option.text == decision), ""),
        explanation=(found.long_answer or "").strip() or None,
    )
