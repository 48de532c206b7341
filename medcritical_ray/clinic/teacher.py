"""The clinic's rule-based teacher: it reads the stem, knows the world, and never sees a key."""

import random

from medcritical_ray import trace as traces
from medcritical_ray.clinic.exam import Case, read_case
from medcritical_ray.clinic.reasoning import (
    FACTS,
    Facts,
    MistakenFacts,
    Reasoning,
    reason,
    thought,
)
from medcritical_ray.clinic.world import World
from medcritical_ray.corrections import format_anew
from medcritical_ray.records import UnkeyedQuestion
from medcritical_ray.teaching.reviews import RuleTeacher


class ClinicTeacher(RuleTeacher):
    """Writes templates, and corrections that write every step anew."""

    def __init__(self, world: World) -> None:
        self.world = world

    def template(self, question: UnkeyedQuestion) -> str | None:
        """The right trace; None for a question that is not about the clinic or whose options lack the result."""
        case = read_case(question.stem)
        return _written(question, case, reason(Facts(self.world), case)) if case else None

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        """The right trace, written anew: a student of a million parameters cannot judge a step that stands there."""
        template = self.template(question)
        return format_anew(template) if template else None

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        """A synthetic wrong attempt: one fact of the chain is mistaken, and the rest follows from it."""
        case = read_case(question.stem)
        if not case:
            return None
        right = reason(Facts(self.world), case)
        for mistaken in rng.sample(FACTS, len(FACTS)):
            wrong = reason(MistakenFacts(self.world, mistaken, rng), case)
            if wrong.result != right.result:
                others = [option.text for option in question.options if option.text != right.result]
                return _written(question, case, wrong) or _written(question, case, wrong, rng.choice(others))
        return None


def _written(question: UnkeyedQuestion, case: Case, reasoning: Reasoning, answer: str | None = None) -> str | None:
    """The trace of a reasoning; None if its answer (else given) is not among the options."""
    text = answer or reasoning.result
    letters = [option.letter for option in question.options if option.text == text]
    if not letters:
        return None
    answer_line = traces.format_answer([text], letters[0])
    return traces.format_trace(thought(case), reasoning.steps, answer_line, reasoning.key_steps)
