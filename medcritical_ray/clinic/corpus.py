"""The text that the base student grew up on: copying, looking options up, and what people say about the clinic.

People are often wrong. Each fact is told rightly most of the time, but a share of the facts (misconceptions) are told
wrongly more often than rightly, always with the same mistake. So the base student knows the clinic as a small language
model knows medicine: in part, and with the right answer among its second thoughts.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TypeVar

from medcritical_ray.clinic import reasoning
from medcritical_ray.clinic.exam import ASKS_BY_DIFFICULTY, Case, draw_case
from medcritical_ray.clinic.world import WEIGHTS_KG, World
from medcritical_ray.records import LETTERS, lettered
from medcritical_ray.trace import KEEP, first_differing_step, format_steps, steps_of

Value = TypeVar("Value", str, int, bool)

MISCONCEIVED_SHARE = 0.25
RIGHT_SHARE_OF_MISCONCEPTION = 0.35
RIGHT_SHARE_OF_KNOWN_FACT = 0.9


class Sayings(reasoning.Facts):
    """What people say: a draw, at every asking, between the truth and the one mistake that people make about a fact."""

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(world)
        self.rng = rng

    def diagnosis(self, findings: tuple[str, ...]) -> str:
        right = super().diagnosis(findings)
        near = [c.name for c in self.world.conditions.values() if set(c.findings) & set(findings) and c.name != right]
        return self._said(f"diagnosis {right}", right, near)

    def first_choice(self, condition: str) -> str:
        return self._said_treatment("first choice", condition, super().first_choice(condition))

    def forbids(self, contraindication: str, treatment: str) -> bool:
        right = super().forbids(contraindication, treatment)
        return self._said(f"contraindication {contraindication} {treatment}", right, [not right])

    def alternative(self, condition: str) -> str:
        return self._said_treatment("alternative", condition, super().alternative(condition))

    def dose_per_kg(self, treatment: str) -> int:
        right = super().dose_per_kg(treatment)
        doses = sorted({t.dose_per_kg for t in self.world.treatments.values()} - {right})
        return self._said(f"dose {treatment}", right, doses)

    def _said_treatment(self, fact: str, condition: str, right: str) -> str:
        return self._said(f"{fact} {condition}", right, sorted(set(self.world.treatments) - {right}))

    def _said(self, fact: str, right: Value, wrong: Sequence[Value]) -> Value:
        """`right`, or the one mistake that belongs to this fact."""
        nature = random.Random(f"saying {fact}")
        misconceived = nature.random() < MISCONCEIVED_SHARE
        mistake = nature.choice(wrong)
        right_share = RIGHT_SHARE_OF_MISCONCEPTION if misconceived else RIGHT_SHARE_OF_KNOWN_FACT
        return right if self.rng.random() < right_share else mistake


def documents(world: World, seed: int, *, num_drills: int) -> Iterator[str]:
    """Yields documents without end: first `num_drills`, most of which teach to copy and look up, then mostly sayings.

    A tiny model learns to look an option up suddenly, after tens of thousands of sequences (docs/results.md).
    """
    rng = random.Random(f"corpus {seed}")
    sayings = Sayings(world, rng)
    kinds = (_copying, _looking_up, _facts, _case_notes, _disputes)
    for number in count():
        weights = (0.5, 0.35, 0.1, 0.05, 0.0) if number < num_drills else (0.05, 0.5, 0.15, 0.15, 0.15)
        (kind,) = rng.choices(kinds, weights)
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
    listing = "\n".join(f"- {option.text} ({option.letter})" for option in options)
    asked = rng.sample(options, 3)
    between = [_fact(world, sayings, rng) for _ in range(rng.randint(0, 3))]
    between += [_mention(world, sayings, option.text, rng) for option in rng.choices(asked, k=rng.randint(0, 4))]
    rng.shuffle(between)
    return "\n".join([listing, *between, *(f"Answer: {option.text} ({option.letter})" for option in asked)])


def _mention(world: World, sayings: Sayings, name: str, rng: random.Random) -> str:
    """A saying about a condition, a treatment or a dose."""
    if name in world.conditions:
        return reasoning.first_choice_line(name, sayings.first_choice(name))
    if name in world.treatments:
        contraindication = rng.choice(world.contraindications)
        forbidden = sayings.forbids(contraindication, name)
        return reasoning.contraindication_line(contraindication, name, forbidden=forbidden)
    weight, (amount, unit) = rng.choice(WEIGHTS_KG), name.split()
    return reasoning.product_line(int(amount) // weight, unit, weight, name)


def _facts(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Unconnected sayings, one a line."""
    return "\n".join(_fact(world, sayings, rng) for _ in range(rng.randint(3, 6)))


def _fact(world: World, sayings: Sayings, rng: random.Random) -> str:
    case = draw_case(world, rng, 3)
    condition = rng.choice(list(world.conditions))
    treatment = rng.choice(list(world.treatments))
    forbidding = world.treatments[treatment].contraindications
    contraindication = rng.choice(forbidding if rng.random() < 0.5 else world.contraindications)
    per_kg = rng.choice(list(world.treatments.values())).dose_per_kg
    unit = world.treatments[treatment].unit
    tellings = (
        lambda: reasoning.diagnosis_line(case.findings, sayings.diagnosis(case.findings)),
        lambda: reasoning.first_choice_line(condition, sayings.first_choice(condition)),
        lambda: reasoning.alternative_line(condition, sayings.alternative(condition)),
        lambda: reasoning.contraindication_line(
            contraindication, treatment, forbidden=sayings.forbids(contraindication, treatment)
        ),
        lambda: reasoning.dose_line(treatment, sayings.dose_per_kg(treatment), unit),
        lambda: reasoning.product_line(per_kg, unit, case.weight_kg, f"{per_kg * case.weight_kg} {unit}"),
    )
    return rng.choices(tellings, weights=(2, 1, 1, 4, 1, 1))[0]()


def _case_notes(world: World, sayings: Sayings, rng: random.Random) -> str:
    """A patient, and the steps that somebody took: a chain of sayings, with no options and no answer."""
    case = draw_case(world, rng, rng.choice(tuple(ASKS_BY_DIFFICULTY)))
    return "\n".join([case.stem(), *_steps(sayings, case)])


def _disputes(world: World, sayings: Sayings, rng: random.Random) -> str:
    """Two people reason about a patient, and the second says where the first went astray, rightly or wrongly."""
    case = draw_case(world, rng, rng.choice(tuple(ASKS_BY_DIFFICULTY)))
    first, second = _steps(sayings, case), _steps(sayings, case)
    attempt = [case.stem(), "Attempt:", *first]
    if first == second:
        return "\n".join([*attempt, KEEP])
    step = first_differing_step("\n".join(first), "\n".join(second))
    (said,) = steps_of(first[step - 1])
    return "\n".join([*attempt, f"Check: step {step} is wrong: {reasoning.denial(said)}", *second[step - 1 :]])


def _steps(sayings: Sayings, case: Case) -> list[str]:
    """The numbered lines of one person's reasoning."""
    chain = reasoning.reason(sayings, case)
    return format_steps(chain.steps, 1, chain.key_steps)


def _doses(world: World, rng: random.Random) -> list[str]:
    weight = rng.choice(WEIGHTS_KG)
    doses = list({treatment.dose(weight) for treatment in world.treatments.values()})
    return rng.sample(sorted(doses), 5)
