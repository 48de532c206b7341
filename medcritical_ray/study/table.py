"""A study as Markdown."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from medcritical_ray.statistics import percent, with_interval
from medcritical_ray.study.arms import TRUNK, leading_arms

_COLUMNS = (
    *("arm", "accuracy", "each seed", "over stage 1", "p", "pairs", "chosen right line by line", "repaired"),
    *("broken", "teacher calls", "teacher tokens", "price", "rollout tokens", "training tokens", "seconds"),
)
_CORRECTOR_FIGURES = ("wrong_to_right", "right_to_wrong")
_PAIRED_COLUMNS = ("arm", "over", "points", "p", "points, each seed", "p, each seed")


def study_table(figures: dict[str, Any]) -> str:
    """The study as Markdown: a table of the arms, and how the leading arms compare with the others."""
    num_test = figures["arms"][TRUNK]["num_test"]
    lines = [
        f"Accuracy on {num_test:,} test questions, seeds {', '.join(map(str, figures['seeds']))}: the mean, from two",
        "seeds on with its 95 % interval (Student's t over the seeds), and each seed's. p is of a permutation test",
        "over the questions, each with all its seeds; of single seeds, of McNemar's exact test. The teacher's calls,",
        "tokens and price are sums over the seeds, all else is their mean. Pairs are those that one iteration trains",
        f"on. All but accuracy is of stage 2; the seconds of `{TRUNK}`, which has none, are of stage 1. Of phases",
        "that were resumed they are those of the last process.",
        "",
        _row(_COLUMNS),
        _row(["---"] * len(_COLUMNS)),
        *(_row(_cells(arm, row, figures["comparisons"].get(arm, {}))) for arm, row in figures["arms"].items()),
        "",
        _row(_PAIRED_COLUMNS),
        _row(["---"] * len(_PAIRED_COLUMNS)),
    ]
    for arm in leading_arms(figures["comparisons"]):
        lines += [_row(_paired_cells(arm, *other)) for other in figures["comparisons"][arm].items()]
    return "\n".join(lines) + "\n"


def accuracy_text(row: dict[str, Any]) -> str:
    """The mean over the seeds, with its interval if there are several."""
    mean = row["mean_accuracy"]
    return with_interval(mean) if mean["n"] > 1 else percent(mean["value"])


def _cells(arm: str, row: dict[str, Any], comparisons: dict[str, Any]) -> list[str]:
    over, cost = comparisons.get(TRUNK), row["stage2_teacher_cost"]
    return [
        f"`{arm}`",
        accuracy_text(row),
        ", ".join(f"{100 * value:.1f}" for value in row["accuracy"]),
        *((f"{100 * over['gain']:+.1f}", f"{over['p_value']:.1g}") if over else ("", "")),
        _mean_text(_num_trained(pairs) for iterations in row["pairs"] for pairs in iterations),
        _percent_of(row["chosen_right_line_by_line"]),
        *(_percent_of([s["value"] if s and s["n"] else None for s in row[name]]) for name in _CORRECTOR_FIGURES),
        f"{row['stage2_teacher_calls']:,}",
        f"{row['stage2_teacher_tokens']:,}",
        "unknown" if cost is None else f"{cost:.2f}",
        *(_mean_text(row[name]) for name in ("rollout_tokens", "training_tokens", "seconds")),
    ]


def _num_trained(pairs: dict[str, Any]) -> int:
    return sum(pairs["made"].values()) + pairs["from_earlier_iterations"]


def _paired_cells(arm: str, other: str, paired: dict[str, Any]) -> list[str]:
    gains = ", ".join(f"{100 * seed['gain']:+.1f}" for seed in paired["per_seed"])
    p_values = ", ".join(f"{seed['p_value']:.1g}" for seed in paired["per_seed"])
    return [f"`{arm}`", f"`{other}`", f"{100 * paired['gain']:+.1f}", f"{paired['p_value']:.1g}", gains, p_values]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent_of(shares: Iterable[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return percent(fmean(known)) if known else ""


def _mean_text(values: Iterable[float]) -> str:
    values = list(values)
    return f"{fmean(values):,.0f}" if values else ""
