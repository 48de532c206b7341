"""What the tasks beside this file need of Python: the questions, and how an answer is read.

It is copied beside them, and imports nothing of the package that wrote it.
"""

import json
import re
from pathlib import Path
from typing import Any

_ANSWER = re.compile(r"Answer:.*\(([A-J]+)\)")


def questions(**_: Any) -> dict[str, Any]:
    """The split `test`: id, prompt, letters of the options, and key of each question."""
    from datasets import Dataset

    with Path(__file__).with_name("questions.jsonl").open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def letters(responses: list[list[str]], docs: list[dict[str, str]]) -> list[list[str]]:
    """The letters that each response to each question answers; none if it cannot be read."""
    return [[_answer(text, doc["letters"]) for text in texts] for texts, doc in zip(responses, docs, strict=True)]


def _answer(text: str, options: str) -> str:
    """What the last line states, as in "Answer: rest; heat (AC)": alphabetical, and letters of options alone."""
    lines = text.strip().splitlines()
    match = _ANSWER.fullmatch(lines[-1].strip()) if lines else None
    answered = sorted(set(match[1])) if match else []
    return "".join(answered) if set(answered) <= set(options) else ""
