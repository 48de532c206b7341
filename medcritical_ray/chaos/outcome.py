"""What came of kills, and of the runs that got them, in figures."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from medcritical_ray.chaos.comparison import Comparison
from medcritical_ray.chaos.schedule import Signal, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A kill that was sent to a run, `time` seconds after the first of all, in a phase; `recovery_seconds` are those
    until the run had recovered from it, None if these were more than it may take."""

    run: str
    time: float
    target: Target
    signal: Signal
    iteration: int
    phase: str
    recovery_seconds: float | None

    @property
    def is_survived(self) -> bool:
        return self.recovery_seconds is not None


def figures(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of some runs together, as plain values. `recovery_seconds` are medians."""
    seconds: dict[str, list[float]] = defaultdict(list)
    tallies: dict[str, dict[str, dict[str, int]]] = {}
    for each in outcomes:
        if each.recovery_seconds is not None:
            seconds[each.target].append(each.recovery_seconds)
        tally = tallies.setdefault(each.target, {}).setdefault(each.phase, {"kills": 0, "survived": 0})
        tally["kills"] += 1
        tally["survived"] += each.is_survived
    return {
        "kills": len(outcomes),
        "survived": sum(each.is_survived for each in outcomes),
        "rows_expected": sum(each.num_expected for each in comparisons),
        "rows_lost": sum(each.num_lost for each in comparisons),
        "rows_doubled": sum(each.num_doubled for each in comparisons),
        "rows_changed": sum(each.num_changed for each in comparisons),
        "broken": [fault for each in comparisons for fault in each.broken],
        "recovery_seconds": {target: round(median(values), 1) for target, values in seconds.items()},
        "longest_recovery_seconds": {target: round(max(values), 1) for target, values in seconds.items()},
        "by_target_and_phase": tallies,
        "sent": [asdict(each) for each in outcomes],
    }


def nothing_was_lost(result: dict[str, Any]) -> bool:
    """Whether figures tell that every kill was survived and every run is as it would have been undisturbed."""
    lost = any(result[name] for name in ("rows_lost", "rows_doubled", "rows_changed", "broken"))
    return result["survived"] == result["kills"] and not lost
