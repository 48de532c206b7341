"""A self-iteration whose phases overlap, beside the same phases one after the other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.benchmarks import iteration
from jobs.benchmarks.figures import NotMeasured

GOAL = replace(iteration.GOAL, peer="the same phases without overlap", target=1.3)


def measure(repeats: int, scratch: Path) -> Sequence[NotMeasured]:
    return [NotMeasured(goal=GOAL, why="phases follow one another, and there is no overlap to be switched off")]
