"""The figures of a run for its report, read from what its phases left on disk, however far it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.evaluation import by_label
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.iterations import Iteration, latest_adopted, read_iterations
from medcritical_ray.run.questions import split_path
from medcritical_ray.run.state import RunState, run_state
from medcritical_ray.statistics import PairedComparison, Proportion, compare

MAX_VALUES = 50
"""Of a label, those with most questions: one that numbers the questions would fill the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """All that a report tells in numbers. `by_label` has label -> value -> (after stage 1, of the latest adopted)."""

    name: str
    state: RunState
    num_iterations: int
    base: dict[str, Any] | None
    iterations: list[Iteration]
    """Stage 1 and the self-iterations, as far as they have begun."""
    final: Iteration | None
    """The latest whose policy was adopted."""
    gain: PairedComparison | None
    by_label: dict[str, dict[str, tuple[Proportion, Proportion]]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def run_figures(run: RunDirectory) -> RunFigures:
    """Raises UserError if there is no run, or if one of its files cannot be read."""
    record = run.record()
    num_iterations = record.config.get("run", {}).get("num_iterations", 0)
    iterations = [each for each in read_iterations(run, num_iterations) if each.phases]
    final = latest_adopted(iterations)
    correct = {each.number: _correct(run, each) for each in (*iterations[:1], *([final] if final else []))}
    before, after = correct.get(STAGE_ONE), correct.get(final.number) if final else None
    return RunFigures(
        name=run.path.name,
        state=run_state(run),
        num_iterations=num_iterations,
        base=iterations[0].phases.get("evaluate_base", {}).get("test") if iterations else None,
        iterations=iterations,
        final=final,
        gain=compare(before, after) if before and after and final and final.number else None,
        by_label=dict(_by_label(run, before, after)) if before and after else {},
        record=record.model_dump(mode="json"),
    )


def _questions(run: RunDirectory) -> QuestionSet:
    return QuestionSet.whole(split_path(run, "test"))


def _correct(run: RunDirectory, each: Iteration) -> dict[str, bool] | None:
    if each.test is None:
        return None
    return correct_by_question(_questions(run), run.iteration(each.number) / "evaluation" / "test")


def _by_label(
    run: RunDirectory, before: dict[str, bool], after: dict[str, bool]
) -> Iterator[tuple[str, dict[str, tuple[Proportion, Proportion]]]]:
    labels = {question.id: question.labels for question in _questions(run)}
    earlier, later = by_label(labels, before), by_label(labels, after)
    for label, values in earlier.items():
        shown = set(sorted(values, key=lambda value: values[value].n, reverse=True)[:MAX_VALUES])
        yield label, {value: (share, later[label][value]) for value, share in values.items() if value in shown}
