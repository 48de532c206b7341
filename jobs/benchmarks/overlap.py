"""A self-iteration whose phases overlap, beside the same phases one after the other."""

from collections.abc import Sequence
from pathlib import Path

from jobs.benchmarks.figures import Goal, NotMeasured

GOAL = Goal(
    name="the demo's first self-iteration",
    unit="s",
    peer="the same phases without overlap",
    target=1.3,
    ratio="peer / ours",
)


def measure(repeats: int, scratch: Path) -> Sequence[NotMeasured]:
    return [NotMeasured(goal=GOAL, why="phases follow one another, and there is no overlap to be switched off")]
