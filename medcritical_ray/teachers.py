"""Teachers: who writes the templates and corrections of stage 1, and what of it counts."""

import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from medcritical_ray import trace as traces
from medcritical_ray.grading import grade_attempt, grade_correction
from medcritical_ray.records import Question, UnkeyedQuestion

_SENTENCE_END = re.compile(r"(?<=[。；;!?！？])|(?<=\.)\s|\n")  # the point of 37.5 ends nothing
_JUDGED_RIGHT = re.compile(r"[（(]([A-J]+)(?:对|正确)|(?<![A-Za-z])([A-J])(?:对|正确)")


class Teacher(Protocol):
    """Writes from the question alone. It never sees a key; None means that it cannot tell."""

    def template(self, question: UnkeyedQuestion) -> str | None: ...

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None: ...

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        """A synthetic wrong attempt, to be corrected."""
        ...


class ExplanationTeacher:
    """An exam's own explanations as a teacher: the letters that an explanation judges right are its answer.

    Explanations of the Chinese licensing exam judge options one by one ("A对", "B错"); those that judge none right are
    of no use here. A template has at most `max_steps` steps of at most `max_step_chars` characters.
    """

    def __init__(self, explanations: Mapping[str, str], *, max_steps: int = 3, max_step_chars: int = 60) -> None:
        self.explanations = explanations
        self.max_steps = max_steps
        self.max_step_chars = max_step_chars

    def template(self, question: UnkeyedQuestion) -> str | None:
        explanation = self.explanations.get(question.id, "")
        texts = {option.letter: option.text for option in question.options}
        letters = sorted({letter for marks in _JUDGED_RIGHT.findall(explanation) for letter in "".join(marks)})
        steps = self._steps(explanation)
        if not letters or not steps or not set(letters) <= set(texts):
            return None
        answer = traces.format_answer([texts[letter] for letter in letters], "".join(letters))
        return traces.format_trace("judge the options by what is known of each, then choose.", steps, answer)

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        template = self.template(question)
        if template is None:
            return None
        if traces.answer_of(attempt) == traces.answer_of(template):
            return traces.KEEP
        step = traces.first_differing_step(template, attempt)
        return traces.format_correction(template, step, "it does not lead to the answer.")

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        """The template with another option for its answer."""
        template = self.template(question)
        answer = traces.answer_of(template) if template else None
        others = [option for option in question.options if answer and option.letter not in answer.letters]
        if template is None or not others:
            return None
        other = rng.choice(others)
        steps = traces.lines_before_step(template, len(traces.steps_of(template)) + 1)
        return steps + traces.format_answer([other.text], other.letter)

    def _steps(self, explanation: str) -> list[str]:
        sentences = [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(explanation)]
        return [sentence[: self.max_step_chars] for sentence in sentences if sentence][: self.max_steps]


def verified_template(teacher: Teacher, question: Question, drops: Counter[str]) -> str | None:
    """The teacher's template if it reaches the key; else None, with the reason counted in `drops`."""
    template = teacher.template(question.unkeyed())
    if template is None:
        drops["teacher has no template"] += 1
        return None
    grade = grade_attempt(question, template, finished=True)
    if not grade.correct or not grade.agrees:
        drops["template misses the key"] += 1
        return None
    return template


def verified_correction(teacher: Teacher, question: Question, attempt: str, drops: Counter[str]) -> str | None:
    """The teacher's correction of an attempt if it leads to the key; else None, with the reason counted in `drops`."""
    correction = teacher.correction(question.unkeyed(), attempt)
    if correction is None:
        drops["teacher has no correction"] += 1
        return None
    grade = grade_correction(question, attempt, correction, finished=True)
    if not grade.correct or not grade.agrees:
        drops["correction misses the key"] += 1
        return None
    return correction
