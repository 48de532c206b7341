"""The text that the base student grew up on: copying, looking options up, and what people say about the clinic.

People are often wrong. Each fact is told rightly most of the time, but a share of the facts (misconceptions) are told
wrongly more often than rightly, always with the same mistake. So the base student knows the clinic as a small language
model knows medicine: in part, and with the right answer among its second thoughts.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from medcritical_ray.clinic import reasoning
from medcritical_ray.clinic.exam import (
    ASKS_BY_DIFFICULTY,
    Case,
    draw_case,
    draw_contraindication,
    draw_options,
    split_of,
)
from medcritical_ray.clinic.world import WEIGHTS_KG, World
from medcritical_ray.corrections import format_anew
from medcritical_ray.language import ENGLISH
from medcritical_ray.prompts import options_text
from medcritical_ray.records import LETTERS, Option, lettered
from medcritical_ray.trace import format_answer, format_steps

Value = TypeVar("Value", str, int, bool)

NO_REASON = "it does not follow from the steps."
"""Why something is wrong that nothing said before it contradicts."""
_VERBS = (" mean ", " is ")

MISCONCEIVED_SHARE = 0.5
MISCONCEIVED_VERDICTS_SHARE = 0.2
"""Of what is allowed or forbidden, less. Such a fact belongs to a pair of names, and a tiny student is slow to learn it
from a few examples: where half of them were misconceived, DPO moved all verdicts at once (docs/results.md).
"""


@dataclass(frozen=True, slots=True)
class RightShares:
    """How often people tell a fact rightly."""

    misconceived: float
    known: float


FIRST_THOUGHTS = RightShares(misconceived=0.4, known=0.9)
SECOND_THOUGHTS = RightShares(misconceived=0.9, known=0.98)
"""Whoever judges what another has written errs less often: checking is easier than finding."""


class Sayings(reasoning.Facts):
    """What people say: a draw, at every asking, between the truth and the one mistake that people make about a fact."""

    def __init__(self, world: World, rng: random.Random, right_shares: RightShares = FIRST_THOUGHTS) -> None:
        super().__init__(world)
        self.rng = rng
        self.right_shares = right_shares

    def diagnosis(self, findings: tuple[str, ...]) -> str:
        right = super().diagnosis(findings)
        near = [c.name for c in self.world.conditions.values() if set(c.findings) & set(findings) and c.name != right]
        return self._said(f"diagnosis {right}", right, near)

    def first_choice(self, condition: str) -> str:
        return self._said_treatment("first choice", condition, super().first_choice(condition))

    def forbids(self, contraindication: str, treatment: str) -> bool:
        right = super().forbids(contraindication, treatment)
        fact = f"contraindication {contraindication} {treatment}"
        return self._said(fact, right, [not right], MISCONCEIVED_VERDICTS_SHARE)

    def alternative(self, condition: str) -> str:
        return self._said_treatment("alternative", condition, super().alternative(condition))

    def dose_per_kg(self, treatment: str) -> int:
        right = super().dose_per_kg(treatment)
        doses = sorted({t.dose_per_kg for t in self.world.treatments.values()} - {right})
        return self._said(f"dose {treatment}", right, doses)

    def _said_treatment(self, fact: str, condition: str, right: str) -> str:
        return self._said(f"{fact} {condition}", right, sorted(set(self.world.treatments) - {right}))

    def _said(
        self, fact: str, right: Value, wrong: Sequence[Value], misconceived_share: float = MISCONCEIVED_SHARE
    ) -> Value:
        """`right`, or the one mistake that belongs to this fact."""
        nature = random.Random(f"saying {fact}")
        misconceived = nature.random() < misconceived_share
        mistake = nature.choice(wrong)
        right_share = self.right_shares.misconceived if misconceived else self.right_shares.known
        return right if self.rng.random() < right_share else mistake


def documents(world: World, seed: int, *, num_drills: int) -> Iterator[str]:
    """Yields documents without end: first `num_drills`, most of which teach to copy and look up, then mostly sayings.

    A tiny model learns to look an option up suddenly, after tens of thousands of sequences (docs/results.md).
    """
    rng = random.Random(f"corpus {seed}")
    sayings = Sayings(world, rng)
    drills = {_copying: 0.5, _looking_up: 0.4, _facts: 0.1}
    talk = {_copying: 0.02, _looking_up: 0.13, _facts: 0.2, _judgements: 0.15, _worked_cases: 0.25, _disputes: 0.25}
    for number in count():
        shares = drills if number < num_drills else talk
        (kind,) = rng.choices(list(shares), list(shares.values()))
        yield kind(world, sayings, rng)


def look_ups(world: World, seed: int) -> Iterator[str]:
    """Yields look-up drills without end: what a base student is tested on."""
    rng = random.Random(f"look-ups {seed}")
    while True:
        yield _looking_up(world, Sayings(world, rng), rng)


def _copying(world: World, sayings: Sayings, rng: random.Random) -> str:
    """A random run of names, doses and letters, said over and over, with nothing between them to hold on to."""
    vocabulary = [*world.terms(), *_doses(world, rng), *(f"({letter})" for letter in LETTERS[:5])]
    return " ".join(rng.choices(vocabulary, k=rng.randint(5, 20)) * 3)


def _looking_up(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Lettered options, some talk in which they may be named, and then some of them with their letters.

    In an exam, too, an option's name stands in the reasoning as well as in the list, and only the list has its letter.
    """
    kind = rng.choice((list(world.conditions), list(world.treatments), None))
    options = lettered(rng.sample(kind, 5) if kind else _doses(world, rng))
    asked = rng.sample(options, 3)
    between = [_draw_fact(world, rng)(sayings) for _ in range(rng.randint(0, 3))]
    between += [_mention(world, sayings, option.text, rng) for option in rng.choices(asked, k=rng.randint(0, 4))]
    rng.shuffle(between)
    return "\n".join(
        [options_text(options), *between, *(format_answer([option.text], option.letter) for option in asked)]
    )


def _mention(world: World, sayings: Sayings, name: str, rng: random.Random) -> str:
    """A saying about a condition, a treatment or a dose."""
    if name in world.conditions:
        return reasoning.first_choice_line(name, sayings.first_choice(name))
    if name in world.treatments:
        contraindication = draw_contraindication(world, name, rng)
        forbidden = sayings.forbids(contraindication, name)
        return reasoning.contraindication_line(contraindication, name, forbidden=forbidden)
    amount, unit = name.split()
    weight = rng.choice([weight for weight in WEIGHTS_KG if int(amount) % weight == 0])
    return reasoning.product_line(int(amount) // weight, unit, weight, name)


def _facts(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Unconnected sayings, one a line."""
    return "\n".join(_draw_fact(world, rng)(sayings) for _ in range(rng.randint(3, 6)))


def _judgements(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Sayings, each with what somebody thinks of it on second thoughts."""
    second = Sayings(world, rng, SECOND_THOUGHTS)
    facts = [_draw_fact(world, rng) for _ in range(rng.randint(3, 5))]
    return "\n".join(_judged(fact(sayings), fact(second)) for fact in facts)


def _judged(said: str, true: str) -> str:
    return f"{said} That is right." if said == true else f"{said} That is wrong: {contrast(said, true)}"


def contrast(said: str, true: str) -> str:
    """Why a saying is wrong: the first thing that the true one says otherwise.

    What was said is denied before the truth is told, so that a language model needs only to avoid what it has just
    written. After "is true, not said", the student told again what was said (docs/results.md).
    """
    said_clauses, true_clauses = (text.removesuffix(".").split(reasoning.AND) for text in (said, true))
    claim = next((clause for clause in true_clauses if clause not in said_clauses), None)
    if claim is None:
        return NO_REASON
    subject, verb, value = _parts(claim)
    instead = [wrong for *head, wrong in map(_parts, said_clauses) if verb and head == [subject, verb]]
    return f"{subject}{verb}not {instead[0]} but {value}." if instead else f"{claim}."


def _parts(clause: str) -> tuple[str, str, str]:
    """Subject, verb and value; the first two are empty if the clause has none of the clinic's verbs."""
    for verb in _VERBS:
        if verb in clause:
            return clause.rpartition(verb)
    return "", "", clause


def _draw_fact(world: World, rng: random.Random) -> Callable[[Sayings], str]:
    """A fact, as a function that tells it as people say it."""
    case = draw_case(world, rng, 3)
    condition = rng.choice(list(world.conditions))
    treatment = rng.choice(list(world.treatments))
    contraindication = draw_contraindication(world, treatment, rng)
    per_kg = rng.choice(list(world.treatments.values())).dose_per_kg
    unit = world.treatments[treatment].unit
    tellings: list[Callable[[Sayings], str]] = [
        lambda say: reasoning.diagnosis_line(case.findings, say.diagnosis(case.findings)),
        lambda say: reasoning.first_choice_line(condition, say.first_choice(condition)),
        lambda say: reasoning.alternative_line(condition, say.alternative(condition)),
        lambda say: reasoning.contraindication_line(
            contraindication, treatment, forbidden=say.forbids(contraindication, treatment)
        ),
        lambda say: reasoning.dose_line(treatment, say.dose_per_kg(treatment), unit),
        lambda say: reasoning.product_line(per_kg, unit, case.weight_kg, f"{per_kg * case.weight_kg} {unit}"),
    ]
    return rng.choices(tellings, weights=(2, 1, 1, 4, 1, 1))[0]


def _worked_cases(world: World, sayings: Sayings, rng: random.Random) -> str:
    """A patient, options, and how somebody reasoned and answered: a chain of sayings."""
    case = _draw_case(world, rng)
    options = draw_options(world, case, rng)
    return "\n".join([case.stem(), options_text(options), _written(reasoning.reason(sayings, case), options, rng)])


def _disputes(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Somebody reasons about a patient, and another writes it anew, on second thoughts."""
    case = _draw_case(world, rng)
    options = draw_options(world, case, rng)
    voices = (sayings, Sayings(world, rng, SECOND_THOUGHTS))
    attempt, redone = (_written(reasoning.reason(voice, case), options, rng) for voice in voices)
    return "\n".join([case.stem(), options_text(options), f"{ENGLISH.attempt}:", attempt, format_anew(redone)])


def _draw_case(world: World, rng: random.Random) -> Case:
    """A case that no dev or test question is about."""
    cases = (draw_case(world, rng, rng.choice(tuple(ASKS_BY_DIFFICULTY))) for _ in count())
    return next(case for case in cases if split_of(case) == "train")


def _written(chain: reasoning.Reasoning, options: Sequence[Option], rng: random.Random) -> str:
    """Somebody's reasoning and answer: a guess, if the result is not among the options."""
    named = next((option for option in options if option.text == chain.result), None) or rng.choice(options)
    steps = format_steps(chain.steps, 1, chain.key_steps)
    return "\n".join([*steps, format_answer([named.text], named.letter)])


def _doses(world: World, rng: random.Random) -> list[str]:
    weight = rng.choice(WEIGHTS_KG)
    doses = list({treatment.dose(weight) for treatment in world.treatments.values()})
    return rng.sample(sorted(doses), 5)
