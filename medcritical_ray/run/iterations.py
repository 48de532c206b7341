"""What a run's iterations have come to: the results of their phases, and what became of their policies."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from medcritical_ray.files import checked
from medcritical_ray.phases import PHASES, TRAININGS, iteration_name
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.files import METRICS


class Rejected(BaseModel):
    """The rule by which a policy was rejected, its figures, and both in words."""

    rule: str
    figures: dict[str, float]
    why: str


class Decision(BaseModel):
    """How a finished iteration ended: with which policy the run goes on, and why it is not the new one, if that was
    rejected."""

    adopted_version: int
    rejected: Rejected | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Iteration:
    """Stage 1 (number 0) or a self-iteration, as far as it is: the results of the phases that are done, by phase. Its
    policy has its number as version."""

    number: int
    phases: dict[str, dict[str, Any]]
    decision: Decision | None = None
    """None until it is finished."""

    @property
    def name(self) -> str:
        return iteration_name(self.number)

    @property
    def test(self) -> dict[str, Any] | None:
        """The evaluation on test, if there is one."""
        evaluation: dict[str, Any] | None = self.phases.get("evaluate", {}).get("test")
        return evaluation

    @property
    def is_adopted(self) -> bool | None:
        """Whether the run went on with its policy; None while that is open, and of one that trained nothing."""
        if self.decision is None or not any(phase in self.phases for phase in TRAININGS):
            return None
        return self.decision.adopted_version == self.number

    @property
    def why_rejected(self) -> str:
        return self.decision.rejected.why if self.decision and self.decision.rejected else ""


def read_iterations(run: RunDirectory, num_iterations: int) -> list[Iteration]:
    """Stage 1 and the self-iterations of a run that has so many, those that have not begun among them. Raises UserError
    if a file is damaged."""
    decided = dict(decisions(run))
    return [
        Iteration(
            number=number,
            phases={phase: run.result(number, phase) for phase in PHASES if run.done(number, phase)},
            decision=decided.get(number),
        )
        for number in range(num_iterations + 1)
    ]


def decisions(run: RunDirectory) -> Iterator[tuple[int, Decision]]:
    """Of the finished iterations, by number. Raises UserError if the metrics of one are damaged."""
    number = STAGE_ONE
    while run.is_finished(number):
        yield number, checked(Decision, run.metrics(number), run.iteration(number) / METRICS)
        number += 1


def latest_adopted(iterations: list[Iteration]) -> Iteration | None:
    """None before stage 1 is over."""
    return next((each for each in reversed(iterations) if each.is_adopted), None)
