"""The phases of a run, in the order in which they run, and how people are told of them."""

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


def phase_name(phase: str) -> str:
    return phase.replace("_", " ")


def iteration_name(iteration: int) -> str:
    """Of stage 1 (iteration 0) or of a self-iteration."""
    return f"iteration {iteration}" if iteration else "stage 1"
