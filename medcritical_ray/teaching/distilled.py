"""What distillation leaves in its directory: templates, rejects with reasons, and the ledger.

<directory>/
  responses.sqlite    every response that was paid for, by the hash of its request
  templates.jsonl     a question id and its template a line, those that count, and the hash of the question's stem
  rejects.jsonl       a question id and the reason a line
  ledger.json         calls, tokens and cost, those of earlier processes included
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_path, checked, parse_json, read_json
from medcritical_ray.questions import stem_hash
from medcritical_ray.records import Question
from medcritical_ray.teaching.reviews import Charges

RESPONSES, TEMPLATES, REJECTS, LEDGER = "responses.sqlite", "templates.jsonl", "rejects.jsonl", "ledger.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """What became of one question: a template that counts, or the reason why there is none. `num_asked` counts the
    rounds that it took. `stem_hash` is that of the question's stem, since ids that are made of a file's name and a row
    may be another question's tomorrow."""

    question_id: str
    stem_hash: str
    template: str | None
    reason: str | None
    num_asked: int


class _Ledger(BaseModel):
    """What is read of a ledger here. One that somebody else wrote may tell less."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    written_chars: int | None = None
    cost: float | None = None


def write_distilled(directory: Path, results: Iterable[Distilled]) -> None:
    """Each file is whole or not there; a question is in one of the two lists."""
    rows = [{name: value for name, value in asdict(each).items() if value is not None} for each in results]
    _write_lines(directory / TEMPLATES, [row for row in rows if "template" in row])
    _write_lines(directory / REJECTS, [row for row in rows if "template" not in row])


def templates_of(questions: Iterable[Question], directory: Path) -> dict[str, str]:
    """Question id -> template, of these questions alone: none that was written for another question with such an id.

    Templates that somebody else wrote, without a hash of the stem, are taken by their ids. Raises UserError if the
    directory holds no template at all.
    """
    rows = _read_rows(directory)
    return {
        question.id: row["template"]
        for question in questions
        if (row := rows.get(question.id)) and row.get("stem_hash") in (None, stem_hash(question.stem))
    }


def _read_rows(directory: Path) -> dict[str, dict[str, str]]:
    file = directory / TEMPLATES
    try:
        with file.open(encoding="utf-8") as lines:  # str.splitlines would end lines within texts, too
            rows = {row["question_id"]: row for row in map(parse_json, lines) if isinstance(row["template"], str)}
    except FileNotFoundError:
        raise UserError(f"teacher.path = {directory}: holds no {TEMPLATES}: run `medcritical distill` first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not rows:
        raise UserError(f"{file} holds no template: see {REJECTS} beside it")
    return rows


def read_charges(directory: Path) -> Charges:
    """What the templates of the directory took, as its ledger says; at a cost that is not known without one."""
    rows = _read_rows(directory)
    file = directory / LEDGER
    ledger = checked(_Ledger, read_json(file), file) if file.exists() else _Ledger()
    written_chars = sum(len(row["template"]) for row in rows.values())
    return Charges(**ledger.model_dump() | {"written_chars": ledger.written_chars or written_chars})


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
