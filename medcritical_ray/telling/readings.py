"""What the phases and training steps of a run come to in the metrics of `metrics.py`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.telling.metrics import Reading

_STEP_METRICS = {
    "step": "training_step",
    "num_steps": "training_steps",
    "loss": "training_loss",
    "learning_rate": "training_learning_rate",
    "grad_norm": "training_gradient_norm",
    "margin": "training_margin_nats",
    "chosen_logp": "training_chosen_logprob_nats",
    "rejected_logp": "training_rejected_logprob_nats",
    "accuracy": "training_preference_accuracy_ratio",
}
_HELD_OUT_METRICS = {
    "loss": "held_out_loss",
    "margin": "held_out_margin_nats",
    "chosen_logp": "held_out_chosen_logprob_nats",
    "accuracy": "held_out_preference_accuracy_ratio",
}
_CORRECTOR_METRICS = {
    "wrong_to_right": "repaired_ratio",
    "right_to_wrong": "broken_ratio",
    "self_corrected": "self_corrected_ratio",
}
_REFUSED = re.compile(r"[^\w .-]")
_TASKS = ("solve", "repair", "check")
_OUTCOMES = ("right", "wrong", "unreadable")

Figures = Iterator[tuple[str, float, dict[str, str]]]
"""A metric's name without its prefix, a value, and the tags beside those of the phase."""


def of_phase(iteration: int, phase: str, name: str, value: float, **tags: str) -> Reading:
    """A reading of a figure that belongs to one phase."""
    return Reading(name=f"medcritical_{name}", value=value, tags={"iteration": str(iteration), "phase": phase, **tags})


def phase_readings(iteration: int, phase: str, result: Mapping[str, Any]) -> list[Reading]:
    """What the result of a phase that is done tells."""
    figures = [*_whole(result), *_trajectories(result), *_numbers(result), *_held_out(result), *_evaluations(result)]
    return [of_phase(iteration, phase, name, value, **tags) for name, value, tags in figures]


def step_readings(iteration: int, phase: str, metrics: Mapping[str, float]) -> list[Reading]:
    """What one training step tells."""
    return [of_phase(iteration, phase, name, metrics[key]) for key, name in _STEP_METRICS.items() if key in metrics]


def tracked(group: str, readings: Iterable[Reading]) -> dict[str, float]:
    """The readings of one phase or step as a tracker names them: group, metric, and the metric's own tags."""
    return {
        "/".join((group, reading.name.removeprefix("medcritical_"), *_own_tags(reading))): reading.value
        for reading in readings
    }


def past_readings(run: RunDirectory, last_iteration: int) -> list[Reading]:
    """What the phases that are done already tell again, so that a resumed run shows all of itself.

    Raises UserError if the result of one cannot be read.
    """
    return [
        reading
        for iteration in range(last_iteration + 1)
        for phase in run.phases_done(iteration)
        for reading in phase_readings(iteration, phase, run.result(iteration, phase))
    ]


def _own_tags(reading: Reading) -> list[str]:
    """The values of the tags beside those of the phase, without what trackers refuse in a name."""
    own = (value for key, value in reading.tags.items() if key not in ("iteration", "phase"))
    return [_REFUSED.sub("", value) for value in own]


def _whole(result: Mapping[str, Any]) -> Figures:
    for key, name in (("seconds", "phase_seconds"), ("num_tokens", "phase_tokens")):
        if key in result:
            yield name, result[key], {}


def _trajectories(result: Mapping[str, Any]) -> Figures:
    """Of a task that was written at all every outcome is told, as 0 if there is none."""
    for task in _TASKS:
        counts = {outcome: result.get(f"{task}_{outcome}", 0) for outcome in _OUTCOMES}
        if any(counts.values()):
            for outcome, count in counts.items():
                yield "trajectories", count, {"task": task, "outcome": outcome}


def _numbers(result: Mapping[str, Any]) -> Figures:
    pairs = {**result.get("pairs", {}), **({"earlier": result["earlier_pairs"]} if "earlier_pairs" in result else {})}
    for name, tag, counts in (
        ("demonstrations", "task", result.get("demonstrations", {})),
        ("pairs", "source", pairs),
        ("dropped", "reason", result.get("dropped", {})),
    ):
        for key, count in counts.items():
            yield name, count, {tag: key}


def _held_out(result: Mapping[str, Any]) -> Figures:
    for moment, metrics in result.get("held_out", {}).items():
        for key, name in _HELD_OUT_METRICS.items():
            if metrics and key in metrics:
                yield name, metrics[key], {"moment": moment}


def _evaluations(result: Mapping[str, Any]) -> Figures:
    for split in ("dev", "test"):
        figures = result.get(split, {})
        if "accuracy" in figures:
            for part, name in (("value", "accuracy"), ("low", "accuracy_low"), ("high", "accuracy_high")):
                yield f"{name}_ratio", figures["accuracy"][part], {"split": split}
        for key, name in _CORRECTOR_METRICS.items():
            if figures.get(key, {}).get("n"):
                yield name, figures[key]["value"], {"split": split}
