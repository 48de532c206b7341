"""Which figures of a run are told live, to Prometheus and to trackers: one table.

Names end with the unit, as Prometheus has it; Ray puts `ray_` before them, and `_total` after those of counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """`tags` are those of its own; all have the tag `run` besides."""

    name: str
    kind: Kind
    help: str
    tags: tuple[str, ...]

    @property
    def tag_keys(self) -> tuple[str, ...]:
        return ("run", *self.tags)

    @property
    def exported_name(self) -> str:
        """The name that Prometheus knows it by."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One value of a metric, whose tags other than `run` are `tags`."""

    name: str
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)


_OF_PHASE = ("iteration", "phase")


def _gauge(name: str, help_text: str, *tags: str) -> Metric:
    return Metric(name=f"medcritical_{name}", kind="gauge", help=help_text, tags=tags)


def _of_phase(name: str, help_text: str, *tags: str) -> Metric:
    """A figure of one phase of one iteration, which is 0 for stage 1."""
    return _gauge(name, help_text, *_OF_PHASE, *tags)


TOKENS = Metric(
    name="medcritical_tokens",
    kind="counter",
    help="Tokens that engines wrote, by the role they played.",
    tags=("role",),
)
BROADCAST_SECONDS = _gauge(
    "broadcast_seconds", "Seconds until every engine of a role had confirmed the latest version.", "role"
)
_FLEET = (
    TOKENS,
    BROADCAST_SECONDS,
    _gauge("requests_in_flight", "Requests that an engine was handed and has not answered.", "engine", "role"),
    _gauge("engines", "1 for the state of health that the engine is in, else 0.", "engine", "state"),
    _gauge("engine_policy_version", "Policy version that the engine is to serve.", "engine"),
    _gauge("engine_restarts", "Times that the engine was started again after it died.", "engine"),
)
_PHASES = (
    _of_phase("phase_running", "1 while the phase runs, 0 once it has ended."),
    _of_phase("phase_progress_ratio", "Share of the blocks or steps under way in the phase that are done."),
    _of_phase("phase_seconds", "Seconds that the phase took; of a resumed one, in its last process."),
    _of_phase("phase_tokens", "Tokens that a rollout phase wrote, or that a training read."),
)
_OUTCOME = (
    _of_phase("accuracy_ratio", "Share of the split's questions answered rightly, greedy.", "split"),
    _of_phase("accuracy_low_ratio", "Lower bound of its 95 % interval.", "split"),
    _of_phase("accuracy_high_ratio", "Upper bound of its 95 % interval.", "split"),
    _of_phase("repaired_ratio", "Share of wrong answers whose repair reaches the key.", "split"),
    _of_phase("broken_ratio", "Share of right answers that are wrong after a check.", "split"),
    _of_phase("self_corrected_ratio", "Share of checked answers that are right after one round of checks.", "split"),
)
_ROLLOUTS = (
    _of_phase("trajectories", "Attempts (task solve) and corrections (repair, check).", "task", "outcome"),
    _of_phase("demonstrations", "Examples that stage 1 trains on.", "task"),
    _of_phase("pairs", "Preference pairs to train on, `earlier` for those of earlier iterations.", "source"),
    _of_phase("dropped", "Candidates of a phase that were dropped; of pairs, the source comes first.", "reason"),
)
_TRAINING = (
    _of_phase("training_step", "Optimizer steps done."),
    _of_phase("training_steps", "Optimizer steps that the training takes, at most."),
    _of_phase("training_loss", "Loss of the latest step."),
    _of_phase("training_learning_rate", "Learning rate of the latest step."),
    _of_phase("training_gradient_norm", "Norm of the gradient before it is clipped."),
    _of_phase("training_margin_nats", "How much more the policy prefers chosen to rejected than the reference does."),
    _of_phase("training_chosen_logprob_nats", "Mean log-probability of the chosen texts."),
    _of_phase("training_rejected_logprob_nats", "Mean log-probability of the rejected texts."),
    _of_phase("training_preference_accuracy_ratio", "Share of pairs preferred more strongly than by the reference."),
    _of_phase("held_out_loss", "Loss on held-out pairs, `before` and `after` the training.", "moment"),
    _of_phase("held_out_margin_nats", "Margin on held-out pairs.", "moment"),
    _of_phase("held_out_chosen_logprob_nats", "Mean log-probability of the chosen held-out texts.", "moment"),
    _of_phase("held_out_preference_accuracy_ratio", "Share of held-out pairs preferred more strongly.", "moment"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_FLEET, *_PHASES, *_OUTCOME, *_ROLLOUTS, *_TRAINING)}
