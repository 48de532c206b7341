"""The trajectories that a report shows: wrong attempts and what became of them, a bounded and even sample."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import count
from pathlib import Path
from typing import Any, Literal

from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Question, Trajectory
from medcritical_ray.run_directory import RunDirectory
from medcritical_ray.seeds import uniform
from medcritical_ray.tables import part_path, read_part
from medcritical_ray.trace import first_differing_step, lines_before_step

Outcome = Literal["repaired", "still wrong", "unreadable", "still right", "broken", "not corrected"]
OUTCOMES: tuple[Outcome, ...] = ("repaired", "still wrong", "unreadable", "still right", "broken", "not corrected")

PER_OUTCOME = 250
"""Examples of each outcome, at most: a report stays small whatever the run's size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An attempt and one correction of it, if there was one.

    `differ_at` are the indices of the lines, in attempt and correction, at which the first differing step stands; None
    if everything was kept, or nothing corrected.
    """

    iteration: int
    question_id: str
    stem: str
    options: list[str]
    key: str
    labels: dict[str, str]
    attempt: str
    answer: str
    correction: str
    corrected_answer: str
    outcome: Outcome
    differ_at: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examples(run: RunDirectory, rounds: list[tuple[int, QuestionSet]]) -> tuple[list[Example], dict[str, int]]:
    """A sample of what the given iterations wrote, and how many there are of each outcome.

    Of each outcome at most PER_OUTCOME are drawn by their keys, and stand in the order of the draw.
    """
    totals: dict[str, int] = defaultdict(int)
    drawn: dict[str, list[tuple[float, int, Example]]] = defaultdict(list)
    numbers = count()
    for iteration, questions in rounds:
        for block in range(questions.num_blocks):
            for draw, example in _of_block(run, iteration, questions, block):
                totals[example.outcome] += 1
                drawn[example.outcome].append((draw, next(numbers), example))
            drawn.update({outcome: nsmallest(PER_OUTCOME, found) for outcome, found in drawn.items()})
    ordered = sorted(example for found in drawn.values() for example in found)
    return [example for *_, example in ordered], dict(totals)


def _of_block(run: RunDirectory, iteration: int, questions: QuestionSet, block: int) -> Iterator[tuple[float, Example]]:
    """The examples of one block, each with a number in [0, 1) that its key alone decides."""
    directory = run.iteration(iteration)
    by_id = {question.id: question for question in questions.block(block)}
    corrections: dict[tuple[str, int], list[Trajectory]] = defaultdict(list)
    for correction in _read(directory / "corrections", block):
        corrections[correction.question_id, correction.attempt].append(correction)
    for attempt in _read(directory / "attempts", block):
        found = corrections[attempt.question_id, attempt.attempt]
        question = by_id[attempt.question_id]
        if not found and not attempt.correct:
            yield uniform("example", iteration, question.id, attempt.attempt), _example(question, attempt, None)
        for correction in found:
            draw = uniform("example", iteration, question.id, attempt.attempt, correction.task, correction.sample)
            yield draw, _example(question, attempt, correction)


def _read(directory: Path, block: int) -> list[Trajectory]:
    """Of a phase that is under way, some parts are missing yet."""
    path = part_path(directory, block)
    return read_part(path, Trajectory) if path.exists() else []


def _example(question: Question, attempt: Trajectory, correction: Trajectory | None) -> Example:
    changed = correction if correction and correction.answer and correction.first_wrong_step is not None else None
    return Example(
        iteration=attempt.iteration,
        question_id=question.id,
        stem=question.stem,
        options=[f"{option.letter}. {option.text}" for option in question.options],
        key=question.key,
        labels=question.labels,
        attempt=attempt.trace,
        answer=attempt.answer,
        correction=correction.trace if correction else "",
        corrected_answer=correction.answer if correction else "",
        outcome=outcome_of(attempt, correction),
        differ_at=_first_difference(attempt.trace, changed.trace) if changed else None,
    )


def _first_difference(trace: str, other: str) -> tuple[int, int]:
    step = first_differing_step(trace, other)
    return len(lines_before_step(trace, step).splitlines()), len(lines_before_step(other, step).splitlines())


def outcome_of(attempt: Trajectory, correction: Trajectory | None) -> Outcome:
    """What became of an attempt."""
    if correction is None:
        return "not corrected"
    if not correction.answer:
        return "unreadable"
    if attempt.correct:
        return "still right" if correction.correct else "broken"
    return "repaired" if correction.correct else "still wrong"
