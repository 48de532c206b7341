"""Writes a directory of tasks for lm-evaluation-harness: one for chat endpoints, one for completions endpoints.

<directory>/
  chat.yaml completions.yaml    the tasks medcritical_<directory>_chat and medcritical_<directory>_completions
  utils.py                      how an answer is read
  questions.jsonl               id, prompt, letters and texts of the options, and key of each question
"""

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template

from medcritical_ray.files import atomic_directory
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.records import Question

QUESTIONS = "questions.jsonl"
_TASKS = ("chat", "completions")
_CODE = "utils.py"


def write_tasks(directory: Path, questions: Iterable[Question], max_tokens: int) -> list[str]:
    """Writes the tasks and returns their names. What `medcritical evaluate` grades alike has at most `max_tokens`."""
    stem = "medcritical_" + re.sub(r"\W+", "_", directory.resolve().name)
    values = {"name": stem, "max_gen_toks": max(max_tokens - 1, 1)}
    rows = (json.dumps(_row(question), ensure_ascii=False) + "\n" for question in questions)
    with atomic_directory(directory) as place:
        _write(place / QUESTIONS, rows)
        _write(place / _CODE, [_shipped(_CODE)])
        for task in _TASKS:
            _write(place / f"{task}.yaml", [Template(_shipped(f"{task}.yaml")).substitute(values)])
    return [f"{stem}_{task}" for task in _TASKS]


def _row(question: Question) -> dict[str, str | list[str]]:
    return {
        "id": question.id,
        "prompt": solve_prompt(question.unkeyed()),
        "letters": "".join(option.letter for option in question.options),
        "texts": [option.text for option in question.options],
        "key": question.key,
    }


def _shipped(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
