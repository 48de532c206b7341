"""A figure of ours beside a peer's, measured in turn, and what it should reach."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from jobs.cli import note


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What is measured, in which unit, against whom, and what the ratio is to reach.

    The ratio tells how many times better ours is, of rates and of seconds alike, unless it is `ours / peer` throughout.
    Without a peer, it is our figure itself that is held to the target; without a target, it is shown.
    """

    name: str
    unit: str
    target: float | None = None
    peer: str = ""
    ratio: Literal["ours / peer", "peer / ours"] = "ours / peer"
    reach: Literal["at least", "at most"] = "at least"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """The values of each repeat, of ours and of the peer."""

    goal: Goal
    ours_each: Sequence[float]
    peer_each: Sequence[float] = ()

    @property
    def ours(self) -> float:
        return statistics.median(self.ours_each)

    @property
    def peer(self) -> float | None:
        return statistics.median(self.peer_each) if self.peer_each else None

    @property
    def ratio(self) -> float | None:
        """Of the medians."""
        if self.peer is None:
            return None
        return self.ours / self.peer if self.goal.ratio == "ours / peer" else self.peer / self.ours

    @property
    def is_met(self) -> bool:
        if self.goal.target is None:
            return True
        reached = self.ours if self.ratio is None else self.ratio
        return reached >= self.goal.target if self.goal.reach == "at least" else reached <= self.goal.target

    def to_dict(self) -> dict[str, Any]:
        return {
            **_goal_fields(self.goal),
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "met": self.is_met,
            "repeats": len(self.ours_each),
            "ours_each": list(self.ours_each),
            "peer_each": list(self.peer_each),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class NotMeasured:
    """A figure that this machine cannot give, and why."""

    goal: Goal
    why: str

    @property
    def is_met(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        unknown = dict.fromkeys(("ours", "peer", "ratio", "met"))
        lists = {"repeats": 0, "ours_each": [], "peer_each": []}
        return {**_goal_fields(self.goal), **unknown, **lists, "why": f"not measured: {self.why}"}


class Benchmark(Protocol):
    """A module of this package."""

    def measure(self, repeats: int, scratch: Path) -> Sequence[Figure | NotMeasured]:
        """The row's own figure, and then those that go with it; `scratch` is an empty directory."""
        ...


Measure = Callable[[], float]


def in_turn(repeats: int, *measures: Measure) -> list[list[float]]:
    """The values of each measure, taken in turn, first to last and then last to first, so that none is always the one
    that comes when the machine is warm, or busy."""
    values: list[list[float]] = [[] for _ in measures]
    order = list(range(len(measures)))
    for done in range(repeats):
        for index in order:
            values[index].append(measures[index]())
        order.reverse()
        note(f"{done + 1} of {repeats} times")
    return values


def _goal_fields(goal: Goal) -> dict[str, Any]:
    return {"name": goal.name, "against": goal.peer, "unit": goal.unit, "target": goal.target, "reach": goal.reach}


def row_of(number: int, figures: Sequence[Figure | NotMeasured]) -> dict[str, Any]:
    """A row of the result. It is met if all of its figures are; null if one could not be measured. `met_itself` is what
    the row's own figure would be without the others."""
    first, *others = (figure.to_dict() for figure in figures)
    verdicts = [figure.is_met for figure in figures]
    met = None if None in verdicts else all(verdicts)
    return {"id": number, **first, "met": met, "met_itself": first["met"], "also": others}
