"""The phases of a run, in the order in which they run, and how people are told of them."""

from collections.abc import Mapping
from typing import Any

PHASES = (
    "evaluate_base",
    "teach",
    "draft",
    "generate",
    "correct",
    "pair",
    "train",
    "publish",
    "broadcast",
    "evaluate",
)
"""Stage 1 and the self-iterations each have some of them."""

TRAININGS = ("draft", "train")
"""Those in which workers train."""


def drops_of(results: Mapping[str, Any]) -> dict[str, int]:
    """How much the phases of an iteration dropped, by "phase: reason"; `results` has what each left, by phase."""
    drops: dict[str, int] = {}
    for phase in PHASES:
        result = results.get(phase, {})
        too_long = {"too long to train on": result["num_too_long"]} if result.get("num_too_long") else {}
        for reason, num in {**result.get("dropped", {}), **too_long}.items():
            drops[f"{phase_name(phase)}: {reason}"] = num
    return drops


def phase_name(phase: str) -> str:
    return phase.replace("_", " ")


def iteration_name(iteration: int) -> str:
    """Of stage 1 (iteration 0) or of a self-iteration."""
    return f"iteration {iteration}" if iteration else "stage 1"
