"""The figure of a study: accuracy of every arm, mean and each seed."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medcritical_ray.files import atomic_path
from medcritical_ray.statistics import percent
from medcritical_ray.study.arms import leading_arms

_TITLES = {
    "sft": "stage 1",
    "self_dpo": "self-correction DPO",
    "teacher_dpo": "teacher-correction DPO",
    "own_pairs_dpo": "own pairs DPO",
    "both_dpo": "self-correction and own pairs DPO",
    "rft": "SFT on chosen traces (RFT)",
}


def draw_study(figures: dict[str, Any], path: Path) -> None:
    """Draws one row per arm: a line at the mean, and for each seed a point with its 95 % interval (Wilson)."""
    arms = figures["arms"]
    figure = Figure(figsize=(8, 0.7 * len(arms) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, (arm, row) in enumerate(arms.items()):
        colour = "tab:blue" if arm in leading_arms(figures["comparisons"]) else "tab:grey"
        axes.vlines(
            100 * row["mean_accuracy"]["value"], place - 0.35, place + 0.35, color=colour, alpha=0.5, linewidth=4
        )
        _draw_seeds(axes, place, row, colour)
    means = [percent(row["mean_accuracy"]["value"]) for row in arms.values()]
    axes.set_yticks(
        range(len(arms)), [f"{_TITLES.get(arm, arm)}\n{mean}" for arm, mean in zip(arms, means, strict=True)]
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel(f"accuracy in % on {next(iter(arms.values()))['num_test']:,} test questions")
    axes.set_title("Lines: mean of the seeds. Points: each seed, with its 95 % interval.", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_seeds(axes: Any, place: int, row: dict[str, Any], colour: str) -> None:
    num_seeds = len(row["accuracy"])
    for index, (value, (low, high)) in enumerate(zip(row["accuracy"], row["interval"], strict=True)):
        height = place + 0.15 * (index - (num_seeds - 1) / 2)
        errors = [[100 * (value - low)], [100 * (high - value)]]
        axes.errorbar(100 * value, height, xerr=errors, fmt="o", color=colour, markersize=4, capsize=2)
