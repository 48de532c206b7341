"""What is true in the clinic, read from knowledge.toml."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

WEIGHTS_KG = (40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True, slots=True)
class Treatment:
    """A treatment; its daily dose is `dose_per_kg` (in `unit` per kg of body weight)."""

    name: str
    dose_per_kg: int
    unit: str
    contraindications: tuple[str, ...]

    def dose(self, weight_kg: int) -> str:
        return f"{self.dose_per_kg * weight_kg} {self.unit}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition with the findings that mean it, and what it is treated with.

    Any three of its findings tell it from every other condition.
    """

    name: str
    findings: tuple[str, ...]
    first_choice: str
    alternative: str


@dataclass(frozen=True, slots=True)
class World:
    findings: tuple[str, ...]
    contraindications: tuple[str, ...]
    treatments: dict[str, Treatment]
    conditions: dict[str, Condition]

    def diagnose(self, findings: list[str]) -> str | None:
        """The one condition that has all the findings; None if there is not exactly one."""
        having = [c.name for c in self.conditions.values() if set(findings) <= set(c.findings)]
        return having[0] if len(having) == 1 else None

    def forbids(self, contraindication: str, treatment: str) -> bool:
        return contraindication in self.treatments[treatment].contraindications

    def terms(self) -> tuple[str, ...]:
        """Every name in the world."""
        return (*self.conditions, *self.findings, *self.treatments, *self.contraindications)


@cache
def load_world() -> World:
    data = tomllib.loads(files(__package__).joinpath("knowledge.toml").read_text("utf-8"))
    treatments = {
        row["name"]: Treatment(row["name"], row["dose_per_kg"], row["unit"], tuple(row["contraindications"]))
        for row in data["treatments"]
    }
    conditions = {
        row["name"]: Condition(row["name"], tuple(row["findings"]), row["first_choice"], row["alternative"])
        for row in data["conditions"]
    }
    return World(tuple(data["findings"]), tuple(data["contraindications"]), treatments, conditions)
