"""Reads and grades what a policy wrote. The key alone judges; what cannot be read or was cut off is wrong."""

from dataclasses import dataclass, replace

from medcritical_ray import trace as traces
from medcritical_ray.answers import agrees, is_ambiguous
from medcritical_ray.corrections import read_correction
from medcritical_ray.records import Question


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """The graded part of a Trajectory: see there for the fields."""

    trace: str
    answer: str = ""
    agrees: bool = False
    correct: bool = False
    first_wrong_step: int | None = None


def grade_attempt(question: Question, output: str, *, finished: bool) -> Grade:
    """Grades an attempt: right if it finished and its last line answers exactly the key's letters.

    Letters decide. Whether the text beside them is theirs is noted; an answer without a text has none that agrees.
    """
    trace = "\n".join(output.strip().splitlines())
    answer = traces.answer_of(trace) if finished else None
    texts = {option.letter: option.text for option in question.options}
    if answer is None or not set(answer.letters) <= set(texts):
        return Grade(trace=trace)
    is_theirs = agrees(answer, [texts[letter] for letter in answer.letters])
    if not is_theirs and is_ambiguous(answer, texts.values()):
        return Grade(trace=trace)
    return Grade(trace=trace, answer=answer.letters, agrees=is_theirs, correct=answer.letters == question.key)


def grade_correction(question: Question, attempt: str, output: str, *, finished: bool) -> Grade:
    """Grades the trace that a correction leads to; a correction of the wrong form has no answer."""
    correction = read_correction(attempt, output) if finished else None
    if correction is None:
        return Grade(trace=output.strip())
    grade = grade_attempt(question, correction.trace, finished=True)
    return replace(grade, first_wrong_step=correction.first_wrong_step)


def guess_chance(question: Question) -> float:
    """The chance that a blind guess repairs a wrong answer, if it is not that answer again: one in the other options,
    or in the other sets of two or more letters if the key has several."""
    num_options = len(question.options)
    num_answers = num_options if len(question.key) == 1 else 2**num_options - num_options - 1
    return 1 / max(num_answers - 1, 1)
