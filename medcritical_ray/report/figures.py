"""The figures of a run for its report, read from what its phases left on disk, however far it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.evaluation import by_label
from medcritical_ray.phases import PHASES, round_name
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.questions import split_path
from medcritical_ray.run.state import RunState, run_state
from medcritical_ray.statistics import PairedComparison, Proportion, compare

BLOCK_SIZE = 1000

MAX_VALUES = 50
"""Of a label, those with most questions: one that numbers the questions would fill the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Stage 1 (iteration 0) or a self-iteration, as far as it is: the results of the phases that are done, by phase."""

    iteration: int
    phases: dict[str, dict[str, Any]]
    adopted: bool | None = None
    """Whether its policy was adopted; None while that is open, and of an iteration that trained nothing."""
    rejected: str = ""
    """Why its policy was rejected, if it was."""

    @property
    def name(self) -> str:
        return round_name(self.iteration)

    @property
    def test(self) -> dict[str, Any] | None:
        """The evaluation on test, if there is one."""
        evaluation: dict[str, Any] | None = self.phases.get("evaluate", {}).get("test")
        return evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """All that a report tells in numbers. `by_label` has label -> value -> (after stage 1, of the latest adopted)."""

    name: str
    state: RunState
    num_iterations: int
    base: dict[str, Any] | None
    rounds: list[Round]
    final: Round | None
    gain: PairedComparison | None
    by_label: dict[str, dict[str, tuple[Proportion, Proportion]]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def run_figures(run: RunDirectory) -> RunFigures:
    """Raises UserError if there is no run, or if one of its files cannot be read."""
    record = run.record()
    num_iterations = record.config.get("run", {}).get("num_iterations", 0)
    rounds = [each for number in range(num_iterations + 1) if (each := _round(run, number)).phases]
    final = _latest_adopted(rounds)
    correct = {each.iteration: _correct(run, each) for each in (*rounds[:1], *([final] if final else []))}
    before, after = correct.get(STAGE_ONE), correct.get(final.iteration) if final else None
    return RunFigures(
        name=run.path.name,
        state=run_state(run),
        num_iterations=num_iterations,
        base=rounds[0].phases.get("evaluate_base", {}).get("test") if rounds else None,
        rounds=rounds,
        final=final,
        gain=compare(before, after) if before and after and final and final.iteration else None,
        by_label=dict(_by_label(run, before, after)) if before and after else {},
        record=record.model_dump(mode="json"),
    )


def _round(run: RunDirectory, iteration: int) -> Round:
    phases = {phase: run.result(iteration, phase) for phase in PHASES if run.done(iteration, phase)}
    metrics = run.metrics(iteration) if run.is_finished(iteration) else {}
    adopted = None
    if metrics and "evaluate" in phases:
        adopted = iteration == STAGE_ONE or metrics["adopted_version"] == iteration
    rejected = (metrics.get("rejected") or {}).get("why", "")
    return Round(iteration=iteration, phases=phases, adopted=adopted, rejected=rejected)


def _latest_adopted(rounds: list[Round]) -> Round | None:
    return next((each for each in reversed(rounds) if each.adopted and each.test), None)


def _questions(run: RunDirectory) -> QuestionSet:
    return QuestionSet.whole(split_path(run, "test"), BLOCK_SIZE)


def _correct(run: RunDirectory, each: Round) -> dict[str, bool] | None:
    if each.test is None:
        return None
    return correct_by_question(_questions(run), run.iteration(each.iteration) / "evaluation" / "test")


def _by_label(
    run: RunDirectory, before: dict[str, bool], after: dict[str, bool]
) -> Iterator[tuple[str, dict[str, tuple[Proportion, Proportion]]]]:
    labels = {question.id: question.labels for question in _questions(run)}
    earlier, later = by_label(labels, before), by_label(labels, after)
    for label, values in earlier.items():
        shown = set(sorted(values, key=lambda value: values[value].n, reverse=True)[:MAX_VALUES])
        yield label, {value: (share, later[label][value]) for value, share in values.items() if value in shown}
