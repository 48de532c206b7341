"""The clinic's chain of reasoning, from findings to answer, over true facts or over facts with one mistake."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from medcritical_ray.clinic.exam import Case
from medcritical_ray.clinic.world import World

Value = TypeVar("Value", str, int)

Fact = Literal["diagnosis", "first choice", "contraindication", "alternative", "dose per kg", "product"]
FACTS: tuple[Fact, ...] = ("diagnosis", "first choice", "contraindication", "alternative", "dose per kg", "product")

AND = ", and "


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Steps in order, the number of the step to mark as key (the patient check), and the result they lead to."""

    steps: list[str]
    key_steps: frozenset[int]
    result: str


class Facts:
    """What the world says."""

    def __init__(self, world: World) -> None:
        self.world = world

    def diagnosis(self, findings: tuple[str, ...]) -> str:
        return self.world.diagnose(list(findings)) or ""

    def first_choice(self, condition: str) -> str:
        return self.world.conditions[condition].first_choice

    def forbids(self, contraindication: str, treatment: str) -> bool:
        return self.world.forbids(contraindication, treatment)

    def alternative(self, condition: str) -> str:
        return self.world.conditions[condition].alternative

    def dose_per_kg(self, treatment: str) -> int:
        return self.world.treatments[treatment].dose_per_kg

    def product(self, dose_per_kg: int, weight_kg: int) -> int:
        return dose_per_kg * weight_kg


class MistakenFacts(Facts):
    """What the world says, but for one kind of fact, which is drawn at random and is another."""

    def __init__(self, world: World, mistaken: Fact, rng: random.Random) -> None:
        super().__init__(world)
        self.mistaken = mistaken
        self.rng = rng

    def diagnosis(self, findings: tuple[str, ...]) -> str:
        right = super().diagnosis(findings)
        return self._other(right, self.world.conditions) if self.mistaken == "diagnosis" else right

    def first_choice(self, condition: str) -> str:
        right = super().first_choice(condition)
        return self._other(right, self.world.treatments) if self.mistaken == "first choice" else right

    def forbids(self, contraindication: str, treatment: str) -> bool:
        return super().forbids(contraindication, treatment) != (self.mistaken == "contraindication")

    def alternative(self, condition: str) -> str:
        right = super().alternative(condition)
        return self._other(right, self.world.treatments) if self.mistaken == "alternative" else right

    def dose_per_kg(self, treatment: str) -> int:
        right = super().dose_per_kg(treatment)
        doses = {t.dose_per_kg for t in self.world.treatments.values()}
        return self._other(right, doses) if self.mistaken == "dose per kg" else right

    def product(self, dose_per_kg: int, weight_kg: int) -> int:
        right = super().product(dose_per_kg, weight_kg)
        return right + dose_per_kg * self.rng.choice((-10, 10)) if self.mistaken == "product" else right

    def _other(self, right: Value, values: Iterable[Value]) -> Value:
        return self.rng.choice(sorted(value for value in values if value != right))


def reason(facts: Facts, case: Case) -> Reasoning:
    """The chain for a case, as far as its question needs it."""
    condition = facts.diagnosis(case.findings)
    steps = [diagnosis_line(case.findings, condition)]
    if case.ask == "condition":
        return Reasoning(steps, frozenset(), condition)
    treatment = facts.first_choice(condition)
    steps.append(first_choice_line(condition, treatment))
    if case.ask == "first choice":
        return Reasoning(steps, frozenset(), treatment)
    alternative = facts.alternative(condition) if facts.forbids(case.contraindication, treatment) else None
    steps.append(patient_line(case.contraindication, treatment, condition, alternative))
    treatment = alternative or treatment
    if case.ask == "safe treatment":
        return Reasoning(steps, frozenset({3}), treatment)
    unit = facts.world.treatments[treatment].unit
    per_kg = facts.dose_per_kg(treatment)
    dose = f"{facts.product(per_kg, case.weight_kg)} {unit}"
    steps += [dose_line(treatment, per_kg, unit), product_line(per_kg, unit, case.weight_kg, dose)]
    return Reasoning(steps, frozenset({3}), dose)


def thought(case: Case) -> str:
    """The high-level thought for a kind of question: how such a question is attacked."""
    plan = {
        "condition": "name the condition that has all findings.",
        "first choice": "name the condition, then take its first choice.",
        "safe treatment": "name the condition, take its first choice, then check the patient.",
        "safe dose": "name the condition, take its first choice, check the patient, then work out the dose.",
    }
    return plan[case.ask]


def diagnosis_line(findings: tuple[str, ...], condition: str) -> str:
    first, second, third = findings
    return f"{first}, {second} and {third} mean {condition}."


def first_choice_line(condition: str, treatment: str) -> str:
    return f"the first choice for {condition} is {treatment}."


def contraindication_line(contraindication: str, treatment: str, *, forbidden: bool) -> str:
    """The verdict stands last: a language model can learn only what follows from the words before."""
    return f"with {contraindication}, {treatment} is {'forbidden' if forbidden else 'allowed'}."


def alternative_line(condition: str, treatment: str) -> str:
    return f"the alternative for {condition} is {treatment}."


def patient_line(contraindication: str, first_choice: str, condition: str, alternative: str | None) -> str:
    """The verdict on the first choice and, if that is to be replaced, the alternative in the same step.

    So the consequence follows upon the verdict at once. With a step of its own for the alternative, the base student
    took it or left it regardless of the verdict (docs/results.md).
    """
    verdict = contraindication_line(contraindication, first_choice, forbidden=alternative is not None)
    return verdict if alternative is None else f"{verdict[:-1]}{AND}{alternative_line(condition, alternative)}"


def dose_line(treatment: str, dose_per_kg: int, unit: str) -> str:
    return f"the dose of {treatment} is {dose_per_kg} {unit} per kg."


def product_line(dose_per_kg: int, unit: str, weight_kg: int, dose: str) -> str:
    return f"{dose_per_kg} {unit} per kg for {weight_kg} kg is {dose}."
