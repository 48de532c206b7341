"""The written form of a correction: what a corrector makes of an attempt.

It names the first wrong step, says why, and goes on from there; or it keeps everything:

    Check: step 2 is wrong: the first choice for pneumonia is not aspirin but amoxicillin.
    Step 2 (key): the first choice for pneumonia is amoxicillin.
    Answer: amoxicillin (C)

Or it writes the whole trace anew. Then the first step that differs from the attempt's is the one that it calls wrong:

    Check:
    Thought: name the condition, then take its first choice.
    Step 1: fever, productive cough and pleuritic pain mean pneumonia.
    Step 2 (key): the first choice for pneumonia is amoxicillin.
    Answer: amoxicillin (C)

Who cannot yet tell whether a step that stands there is right may still write a better one (docs/design.md). About a
question in Chinese, the same is said in Chinese; either language is read.
"""

import re
from dataclasses import dataclass

from medcritical_ray.language import ENGLISH, LANGUAGES, Language
from medcritical_ray.trace import (
    answer_of,
    first_differing_step,
    lines_before_step,
    lines_from_step,
    starts_with_answer,
    starts_with_step,
    steps_of,
)

_MARK = re.compile(rf"^(?:{'|'.join(language.check for language in LANGUAGES)}) ?[:：] *")
_VERDICTS = "|".join(
    re.escape(words).replace(r"\ ", " ?").replace(r"\{\}", r"(\d{1,9})")
    for language in LANGUAGES
    for words in (language.step_is_wrong, language.answer_is_wrong)
)
_WRONG = re.compile(rf"^(?:{_VERDICTS})(?![^\W_])")
_KEPT = {language.kept for language in LANGUAGES}


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction read against the attempt that it corrects."""

    first_wrong_step: int | None
    trace: str


def format_keep(language: Language = ENGLISH) -> str:
    """The correction that keeps an attempt as it is."""
    return f"{language.check}: {language.kept}"


def format_correction(trace: str, first_wrong_step: int, why: str, language: Language = ENGLISH) -> str:
    """The correction that leads to `trace` by redoing an attempt from `first_wrong_step`."""
    is_answer = first_wrong_step > len(steps_of(trace))
    verdict = language.answer_is_wrong if is_answer else language.step_is_wrong.format(first_wrong_step)
    return f"{language.check}: {verdict}: {why}\n{lines_from_step(trace, first_wrong_step)}"


def format_anew(trace: str, language: Language = ENGLISH) -> str:
    """The correction that leads to `trace` by writing all of it."""
    return f"{language.check}:\n{trace}"


def is_written_anew(output: str) -> bool:
    """Whether a corrector's output has the form of a whole trace."""
    first_line = output.strip().partition("\n")[0]
    return bool(_MARK.fullmatch(first_line.strip()))


def read_correction(attempt: str, output: str) -> Correction | None:
    """Reads a corrector's output against the attempt; None if it has not the form of a correction of that attempt.

    A redone part must begin with the step called wrong and must change it.
    """
    first_line, _, rest = output.strip().partition("\n")
    mark = _MARK.match(first_line)
    if not mark:
        return None
    verdict = first_line[mark.end() :].strip()
    if not verdict:
        return _written_anew(attempt, rest)
    if verdict in _KEPT:
        return None if rest else Correction(None, attempt)
    wrong = _WRONG.match(verdict)
    if not wrong:
        return None
    return _redone(attempt, rest, int(wrong[wrong.lastindex]) if wrong.lastindex else None)


def _written_anew(attempt: str, trace: str) -> Correction | None:
    if not steps_of(trace):
        return None
    if (steps_of(trace), answer_of(trace)) == (steps_of(attempt), answer_of(attempt)):
        return Correction(None, attempt)
    return Correction(first_differing_step(attempt, trace), trace)


def _redone(attempt: str, redone: str, step: int | None) -> Correction | None:
    """From the step on, or from the answer if there is none."""
    num_steps = len(steps_of(attempt))
    number = num_steps + 1 if step is None else step
    is_redone = starts_with_answer(redone) if step is None else starts_with_step(redone, number)
    if not 1 <= number <= num_steps + 1 or not is_redone:
        return None
    if _first_line(redone) == _first_line(lines_from_step(attempt, number)):
        return None
    return Correction(number, lines_before_step(attempt, number) + redone)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()
