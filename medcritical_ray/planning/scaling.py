"""How long a self-iteration takes, what it costs and what limits it, from the speeds of its parts: a model on paper.

docs/scaling.md has its figures for a 7B student; tests/unit/test_scaling.py holds it to what was measured on two cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Of one self-iteration. Tokens are means: of a text that is written, and of a pair as it is trained on, with the
    prompt and the steps that its texts share counted once."""

    num_questions: int
    num_attempts: int
    attempt_tokens: float
    num_corrections: int
    correction_tokens: float
    num_pairs: int
    pair_tokens: float
    num_epochs: int
    num_evaluated: int
    num_checked: int
    policy_bytes: int
    """Of what is broadcast: full weights, or an adapter alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Of one engine, one training worker, one driver, one link between machines, one GPU."""

    written_tokens_per_s: float
    trained_tokens_per_s: float
    attempts_per_s: float
    """That the driver asks for, grades and keeps, whatever the number of engines."""
    paired_questions_per_s: float
    link_bytes_per_s: float
    training_start_s: float
    gpu_hour_price: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Engines and training workers take turns, on GPUs of their own unless `num_gpus` is smaller than their sum."""

    num_gpus: int
    num_engines: int
    num_workers: int
    num_machines: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """`seconds` by phase, `bound_by` what each phase waits for, `bytes_moved` between machines."""

    seconds: Mapping[str, float]
    bound_by: Mapping[str, str]
    bytes_moved: float
    price: float

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def bottleneck(self) -> str:
        """The longest phase and what it waits for."""
        phase = max(self.seconds, key=lambda each: self.seconds[each])
        return f"{phase}: {self.bound_by[phase]}"


def cost_of(work: Work, rates: Rates, layout: Layout) -> Cost:
    """Of one self-iteration by engines that play both roles, and serve the policy when it begins."""
    phases = {
        "generate": _writing(work.num_attempts, work.attempt_tokens, rates, layout),
        "correct": _writing(work.num_corrections, work.correction_tokens, rates, layout),
        "pair": (work.num_questions / rates.paired_questions_per_s, "the driver"),
        "train": _training(work, rates, layout),
        "broadcast": (_num_hops(layout) * work.policy_bytes / rates.link_bytes_per_s, "links"),
        "evaluate": _evaluation(work, rates, layout),
    }
    seconds = {phase: each for phase, (each, _) in phases.items()}
    return Cost(
        seconds=seconds,
        bound_by={phase: why for phase, (_, why) in phases.items()},
        bytes_moved=work.policy_bytes * (layout.num_machines - 1) * 2,  # to engines, and to training workers
        price=layout.num_gpus * sum(seconds.values()) / 3600 * rates.gpu_hour_price,
    )


def _writing(num_texts: int, tokens: float, rates: Rates, layout: Layout) -> tuple[float, str]:
    by_engines = num_texts * tokens / (layout.num_engines * rates.written_tokens_per_s)
    by_driver = num_texts / rates.attempts_per_s
    return max((by_engines, "engines"), (by_driver, "the driver"))


def _training(work: Work, rates: Rates, layout: Layout) -> tuple[float, str]:
    steps_s = work.num_epochs * work.num_pairs * work.pair_tokens / (layout.num_workers * rates.trained_tokens_per_s)
    return rates.training_start_s + steps_s, "workers" if steps_s > rates.training_start_s else "the start of workers"


def _evaluation(work: Work, rates: Rates, layout: Layout) -> tuple[float, str]:
    answers, why = _writing(work.num_evaluated, work.attempt_tokens, rates, layout)
    return answers + _writing(work.num_checked, work.correction_tokens, rates, layout)[0], why


def _num_hops(layout: Layout) -> int:
    """Each machine that has the policy sends it to one that has not."""
    return max(1, ceil(log2(layout.num_machines)))
