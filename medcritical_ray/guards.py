"""Which new policies are rejected, by which rule: pure functions of what a training and its evaluation came to.

A policy that is rejected is recorded like any other, as far as it came; its parent stays and plays on. What goes wrong
with DPO, and where it was seen, is told in docs/design.md.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medcritical_ray.config import Config, GuardsConfig
from medcritical_ray.statistics import PairedComparison

Rule = Literal["not finite", "chosen less likely", "answers unfinished", "worse on dev"]
DIVERGED = "diverged"
"""The key, in the result of a training that was stopped since it diverged, of what happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """The rule that a policy broke, the figures that it was judged by, and both in words."""

    rule: Rule
    figures: dict[str, float]
    why: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_training(trained: Mapping[str, Any], guards: GuardsConfig) -> Rejection | None:
    """What the result of a training says against its policy, before it is published; None if nothing.

    The chosen texts are those of held-out pairs: without any, nothing is said of them.
    """
    if DIVERGED in trained:
        return Rejection(rule="not finite", figures={}, why=trained[DIVERGED])
    held_out = trained.get("held_out") or {}
    before, after = held_out.get("before"), held_out.get("after")
    if not before or not after:
        return None
    if not all(_is_finite(value) for value in after.values()):
        return Rejection(
            rule="not finite", figures={}, why="figures of held-out pairs are not finite after the training"
        )
    logps = before["chosen_logp_per_token"], after["chosen_logp_per_token"]
    most = guards.max_chosen_logp_drop
    if most is None or logps[0] - logps[1] <= most:
        return None
    return Rejection(
        rule="chosen less likely",
        figures={"before": logps[0], "after": logps[1], "max_chosen_logp_drop": most},
        why=f"the log-probability of chosen held-out texts fell from {logps[0]:.2f} to {logps[1]:.2f} nats per token, "
        f"by more than guards.max_chosen_logp_drop = {most:g}",
    )


def judge_evaluation(
    before: Mapping[str, Any], after: Mapping[str, Any], comparison: PairedComparison, config: Config
) -> Rejection | None:
    """What the evaluations on dev of a policy's parent and of itself say against it; None if nothing."""
    rates = before["finish_rate"]["value"], after["finish_rate"]["value"]
    most, level = config.guards.max_finish_rate_drop, config.evaluate.accept_p_value
    if most is not None and rates[0] - rates[1] > most:
        return Rejection(
            rule="answers unfinished",
            figures={"before": rates[0], "after": rates[1], "max_finish_rate_drop": most},
            why=f"finished answers on dev fell from {100 * rates[0]:.1f} to {100 * rates[1]:.1f} %, by more than "
            f"guards.max_finish_rate_drop = {most:g}",
        )
    if comparison.gain < 0 and comparison.p_value <= level:
        return Rejection(
            rule="worse on dev",
            figures={"gain": comparison.gain, "p_value": comparison.p_value, "accept_p_value": level},
            why=f"accuracy on dev fell by {-100 * comparison.gain:.1f} points (McNemar p = {comparison.p_value:.2g}, "
            f"at most evaluate.accept_p_value = {level:g})",
        )
    return None


def _is_finite(value: float | None) -> bool:
    """A figure that went through JSON is None if it was not."""
    return value is not None and math.isfinite(value)
