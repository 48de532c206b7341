"""The written form of reasoning: two-level traces, and corrections of them.

A trace states a high-level thought, numbered steps (tricky ones marked as key), and an answer that names the option's
text and its letter (SuperCorrect's hierarchical template, arXiv 2410.09008, in plain lines):

    Thought: name the condition, then take its first choice.
    Step 1: fever, productive cough and pleuritic pain mean pneumonia.
    Step 2 (key): the first choice for pneumonia is amoxicillin.
    Answer: amoxicillin (C)

About a question in Chinese, the marks are 思路, 步骤 1, 步骤 2 (关键) and 答案. Those of either language are read, in
half or full width.

A correction names the first wrong step, says why, and goes on from there; or it keeps everything:

    Check: step 2 is wrong: the first choice for pneumonia is not aspirin but amoxicillin.
    Step 2 (key): the first choice for pneumonia is amoxicillin.
    Answer: amoxicillin (C)
"""

import re
from dataclasses import dataclass

from medcritical_ray.answers import Answer, is_answer_line, read_answer
from medcritical_ray.language import ENGLISH, LANGUAGES, Language

KEEP = "Check: every step is right."
_STEP_WORD = "|".join(language.step for language in LANGUAGES)
_KEY_WORD = "|".join(language.key for language in LANGUAGES)
_STEP = re.compile(rf"^(?:{_STEP_WORD}) ?(\d+)(?: ?[(（](?:{_KEY_WORD})[)）])? ?[:：] ?(.*)$")
_CHECK = re.compile(r"^Check: (?:step (\d+)|the (answer)) is wrong\b")


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction read against the attempt that it corrects."""

    first_wrong_step: int | None
    trace: str


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


def format_correction(trace: str, first_wrong_step: int, why: str) -> str:
    """The correction that leads to `trace` by redoing an attempt from `first_wrong_step`."""
    num_steps = len(steps_of(trace))
    wrong = f"step {first_wrong_step}" if first_wrong_step <= num_steps else "the answer"
    return "\n".join([f"Check: {wrong} is wrong: {why}", lines_from_step(trace, first_wrong_step)])


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


def read_correction(attempt: str, output: str) -> Correction | None:
    """Reads a corrector's output against the attempt; None if it has not the form of a correction of that attempt.

    The redone part must begin with the step called wrong and must change it.
    """
    verdict, _, redone = output.strip().partition("\n")
    if verdict.strip() == KEEP:
        return None if redone else Correction(None, attempt)
    match = _CHECK.match(verdict)
    if not match:
        return None
    num_steps = len(steps_of(attempt))
    step = int(match[1]) if match[1] else num_steps + 1
    if not 1 <= step <= num_steps + 1 or not _starts_with_step(redone, step, answer=match[2] is not None):
        return None
    if redone.partition("\n")[0].strip() == lines_from_step(attempt, step).partition("\n")[0].strip():
        return None
    return Correction(step, lines_before_step(attempt, step) + redone)


def _starts_with_step(text: str, step: int, *, answer: bool) -> bool:
    first_line = text.splitlines()[0].strip() if text else ""
    if answer:
        return is_answer_line(first_line)
    match = _STEP.match(first_line)
    return match is not None and int(match[1]) == step


def _line_of_step(trace: str, step: int) -> int:
    lines = [line.strip() for line in trace.splitlines()]
    step_lines = [i for i, line in enumerate(lines) if _STEP.match(line)]
    if step <= len(step_lines):
        return step_lines[step - 1]
    has_answer = bool(lines) and is_answer_line(lines[-1])
    return len(lines) - 1 if has_answer else len(lines)
