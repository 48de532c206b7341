"""The written form of reasoning: two-level traces.

A trace states a high-level thought, numbered steps (tricky ones marked as key), and an answer that names the option's
text and its letter (SuperCorrect's hierarchical template, arXiv 2410.09008, in plain lines):

    Thought: name the condition, then take its first choice.
    Step 1: fever, productive cough and pleuritic pain mean pneumonia.
    Step 2 (key): the first choice for pneumonia is amoxicillin.
    Answer: amoxicillin (C)

About a question in Chinese, the marks are 思路, 步骤 1, 步骤 2 (关键) and 答案. Those of either language are read, in
half or full width.
"""

import re

from medcritical_ray.answers import Answer, is_answer_line, read_answer
from medcritical_ray.language import ENGLISH, LANGUAGES, Language

_STEP_WORD = "|".join(language.step for language in LANGUAGES)
_KEY_WORD = "|".join(language.key for language in LANGUAGES)
_STEP = re.compile(rf"^(?:{_STEP_WORD}) ?(\d{{1,9}})(?: ?[(（](?:{_KEY_WORD})[)）])? ?[:：] ?(.*)$")


def format_answer(texts: list[str], letters: str, language: Language = ENGLISH) -> str:
    return f"{language.answer}: {'; '.join(texts)} ({letters})"


def format_trace(
    thought: str,
    steps: list[str],
    answer_line: str,
    key_steps: frozenset[int] = frozenset(),
    language: Language = ENGLISH,
) -> str:
    """The written trace; `key_steps` are the numbers of the steps to mark as key."""
    return "\n".join([f"{language.thought}: {thought}", *format_steps(steps, 1, key_steps, language), answer_line])


def format_steps(
    steps: list[str], first: int, key_steps: frozenset[int] = frozenset(), language: Language = ENGLISH
) -> list[str]:
    marked = f" ({language.key})"
    return [f"{language.step} {n}{marked if n in key_steps else ''}: {step}" for n, step in enumerate(steps, first)]


def steps_of(trace: str) -> list[str]:
    """The texts of a trace's steps, in the order written."""
    return [match[2] for line in trace.splitlines() if (match := _STEP.match(line.strip()))]


def answer_of(trace: str) -> Answer | None:
    """What the last line states if it is an answer line. Nothing before the last line counts as an answer."""
    lines = trace.strip().splitlines()
    return read_answer(lines[-1]) if lines else None


def lines_from_step(trace: str, step: int) -> str:
    """The part of a trace that starts with the given step (one past the last: the answer line, if there is one)."""
    return "".join(trace.splitlines(keepends=True)[_line_of_step(trace, step) :])


def lines_before_step(trace: str, step: int) -> str:
    """The part of a trace before the given step, with its final line break if it is not empty."""
    return "".join(line + "\n" for line in trace.splitlines()[: _line_of_step(trace, step)])


def text_of_step(trace: str, step: int) -> str:
    """The lines of the given step with their line breaks (one past the last: the answer line, empty without one)."""
    text = lines_from_step(trace, step)
    return text if step > len(steps_of(trace)) else text.removesuffix(lines_from_step(trace, step + 1))


def first_differing_step(trace: str, other: str) -> int:
    """The number of the first step at which two traces differ; one past the shorter's last if all those are equal."""
    pairs = zip(steps_of(trace), steps_of(other), strict=False)
    same = [left == right for left, right in pairs]
    return same.index(False) + 1 if False in same else len(same) + 1


def starts_with_step(text: str, step: int) -> bool:
    """Whether the first line is the step of that number."""
    match = _STEP.match(text.strip().partition("\n")[0].strip())
    return match is not None and int(match[1]) == step


def starts_with_answer(text: str) -> bool:
    """Whether the first line is an answer line."""
    return is_answer_line(text.strip().partition("\n")[0].strip())


def _line_of_step(trace: str, step: int) -> int:
    lines = [line.strip() for line in trace.splitlines()]
    step_lines = [i for i, line in enumerate(lines) if _STEP.match(line)]
    if step <= len(step_lines):
        return step_lines[step - 1]
    has_answer = bool(lines) and is_answer_line(lines[-1])
    return len(lines) - 1 if has_answer else len(lines)
