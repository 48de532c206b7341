"""Exam questions about the clinic: made from a seed, numbered, with splits that share no question."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from medcritical_ray.clinic.world import WEIGHTS_KG, World
from medcritical_ray.errors import UserError
from medcritical_ray.records import Option, Question, lettered

Ask = Literal["condition", "first choice", "safe treatment", "safe dose"]
"""What a question asks for, in the order of the reasoning: each needs the steps of those before it."""

Split = Literal["train", "dev", "test"]

NUM_OPTIONS = 5
NUM_ALLOWING = 2
"""With each treatment, exams name every contraindication that forbids it and this many fixed ones that do not. So each
fact comes up in many questions, and what is learnt from one helps with others."""
MAX_DRAWS_IN_VAIN = 10_000
ASKS_BY_DIFFICULTY: dict[int, tuple[Ask, ...]] = {
    1: ("condition", "first choice"),
    2: ("first choice", "safe treatment", "safe treatment"),
    3: ("safe treatment", "safe dose"),
}
_QUESTIONS: dict[Ask, str] = {
    "condition": "What is the most likely condition?",
    "first choice": "What is the first choice of treatment?",
    "safe treatment": "Which treatment is right for this patient?",
    "safe dose": "Which daily dose of the right treatment is due?",
}
_STEM = re.compile(
    r"^A patient weighing (?P<weight>\d+) kg has (?P<first>[^,]+), (?P<second>.+?) and (?P<third>.+?)\. "
    r"The patient also has (?P<contraindication>.+?)\. (?P<question>.+\?)$"
)


@dataclass(frozen=True, slots=True)
class Case:
    """A patient and what is asked about them: everything that a stem says."""

    findings: tuple[str, str, str]
    contraindication: str
    weight_kg: int
    ask: Ask

    def stem(self) -> str:
        first, second, third = self.findings
        return (
            f"A patient weighing {self.weight_kg} kg has {first}, {second} and {third}. "
            f"The patient also has {self.contraindication}. {_QUESTIONS[self.ask]}"
        )


def read_case(stem: str) -> Case | None:
    """Reads a stem back; None if it is not one of the clinic's."""
    match = _STEM.match(stem)
    asks = [ask for ask, question in _QUESTIONS.items() if match and question == match["question"]]
    if not match or not asks:
        return None
    findings = (match["first"], match["second"], match["third"])
    return Case(findings, match["contraindication"], int(match["weight"]), asks[0])


def make_questions(world: World, split: Split, count: int, *, seed: int, difficulty: int) -> Iterator[Question]:
    """Yields `count` questions of one split.

    Splits share no question whatever their seeds, since a case belongs to the split that its own content falls to.
    Difficulty 1 asks for conditions and first choices, 2 for treatments that suit the patient, 3 also for their dose.
    Raises UserError if the clinic has no more questions to ask.
    """
    rng = random.Random(f"exam {split} {seed} {difficulty}")
    seen: set[Case] = set()
    num_in_vain = 0
    while len(seen) < count:
        case = draw_case(world, rng, difficulty)
        num_in_vain += 1
        if num_in_vain > MAX_DRAWS_IN_VAIN:
            raise UserError(
                f"the clinic has about {len(seen)} {split} questions, {count} were asked for: ask for fewer"
            )
        if case not in seen and split_of(case) == split:
            seen.add(case)
            num_in_vain = 0
            yield _question(world, case, rng, f"clinic-{split}-{seed}-{len(seen):06d}")


def right_result(world: World, case: Case) -> str:
    """The text of the right option."""
    condition = world.conditions[world.diagnose(list(case.findings)) or ""]
    if case.ask == "condition":
        return condition.name
    first = condition.first_choice
    if case.ask == "first choice":
        return first
    safe = condition.alternative if world.forbids(case.contraindication, first) else first
    return safe if case.ask == "safe treatment" else world.treatments[safe].dose(case.weight_kg)


def draw_case(world: World, rng: random.Random, difficulty: int) -> Case:
    """Half of the cases have a contraindication that forbids the first choice, half one that does not."""
    condition = rng.choice(list(world.conditions.values()))
    first, second, third = rng.sample(condition.findings, 3)
    return Case(
        (first, second, third),
        draw_contraindication(world, condition.first_choice, rng),
        rng.choice(WEIGHTS_KG),
        rng.choice(ASKS_BY_DIFFICULTY[difficulty]),
    )


def draw_contraindication(world: World, treatment: str, rng: random.Random) -> str:
    """One that forbids the treatment half of the time, else one of those that exams name beside it."""
    forbidding = world.treatments[treatment].contraindications
    if rng.random() < 0.5:
        return rng.choice(forbidding)
    others = [c for c in world.contraindications if c not in forbidding]
    return rng.choice(random.Random(f"allowing {treatment}").sample(others, NUM_ALLOWING))


def draw_options(world: World, case: Case, rng: random.Random) -> tuple[Option, ...]:
    """Lettered options, in any order: the right result, then those that a likely mistake leads to, then others."""
    texts = list(dict.fromkeys([right_result(world, case), *_likely_mistakes(world, case, rng)]))[:NUM_OPTIONS]
    rng.shuffle(texts)
    return lettered(texts)


def _likely_mistakes(world: World, case: Case, rng: random.Random) -> list[str]:
    """Every result of the kind asked for, the likelier ones first."""
    condition = world.conditions[world.diagnose(list(case.findings)) or ""]
    if case.ask == "condition":
        near = [c.name for c in world.conditions.values() if set(c.findings) & set(case.findings)]
        rng.shuffle(near)
        return [*near[:3], *_shuffled(world.conditions, rng)]
    treatments = [condition.first_choice, condition.alternative, *_shuffled(world.treatments, rng)]
    if case.ask != "safe dose":
        return treatments
    return [world.treatments[name].dose(case.weight_kg) for name in treatments]


def split_of(case: Case) -> Split:
    """The split that a case belongs to, from its content: one in five each to dev and test.

    Findings in another order are no other question, nor is another weight where no dose is asked for.
    """
    weight = case.weight_kg if case.ask == "safe dose" else ""
    draw = random.Random(f"{sorted(case.findings)} {case.contraindication} {weight} {case.ask}").random()
    return "dev" if draw < 0.2 else "test" if draw < 0.4 else "train"


def _question(world: World, case: Case, rng: random.Random, question_id: str) -> Question:
    right = right_result(world, case)
    options = draw_options(world, case, rng)
    return Question(
        id=question_id,
        source="clinic",
        stem=case.stem(),
        options=options,
        key=next(option.letter for option in options if option.text == right),
        labels={"ask": case.ask},
    )


def _shuffled(names: dict[str, object] | dict, rng: random.Random) -> list[str]:
    return rng.sample(list(names), len(names))
