"""The trajectories that a report shows: wrong attempts and what became of them, a bounded and even sample."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import accumulate, takewhile
from operator import attrgetter
from pathlib import Path
from typing import Literal

from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Question, Trajectory
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.tables import part_path, read_part
from medcritical_ray.seeds import uniform
from medcritical_ray.trace import first_differing_step, lines_before_step

Outcome = Literal["repaired", "still wrong", "unreadable", "still right", "broken", "not corrected"]
OUTCOMES: tuple[Outcome, ...] = ("repaired", "still wrong", "unreadable", "still right", "broken", "not corrected")

PER_OUTCOME = 250
"""Examples of each outcome, at most."""
MAX_BYTES_PER_OUTCOME = 1_000_000
"""What the examples of an outcome may take of the page: a report stays small whatever the size of run and texts."""
MAX_CHARS = 20_000
"""What is shown of one text, which may have run on until it was cut off."""


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

    def to_json(self) -> str:
        """For a script element: "<" is written as an escape, so that no text can end the element."""
        text = json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    """What an example is made of, and a number in [0, 1) that its key alone decides."""

    draw: float
    outcome: Outcome
    question: Question
    attempt: Trajectory
    correction: Trajectory | None


def examples(run: RunDirectory, iterations: list[tuple[int, QuestionSet]]) -> tuple[list[str], dict[str, int]]:
    """A sample of what the given iterations wrote, as JSON, and how many there are of each outcome.

    Of each outcome at most PER_OUTCOME, and MAX_BYTES_PER_OUTCOME, are drawn by their keys; they stand in the order of
    the draw.
    """
    totals: dict[str, int] = defaultdict(int)
    drawn: dict[str, list[_Drawn]] = defaultdict(list)
    for iteration, questions in iterations:
        for block in range(questions.num_blocks):
            for each in _of_block(run, iteration, questions, block):
                totals[each.outcome] += 1
                drawn[each.outcome].append(each)
            drawn.update({outcome: _first(found) for outcome, found in drawn.items()})
    texts = {each.draw: text for found in drawn.values() for each, text in _within_bytes(found)}
    return [texts[draw] for draw in sorted(texts)], dict(totals)


def _first(found: Iterable[_Drawn]) -> list[_Drawn]:
    return nsmallest(PER_OUTCOME, found, key=attrgetter("draw"))


def _within_bytes(found: list[_Drawn]) -> Iterator[tuple[_Drawn, str]]:
    """Those that fit together, the first in any case."""
    texts = [_example(each).to_json() for each in found]
    sizes = accumulate(len(text.encode()) for text in texts)
    num_fitting = sum(1 for _ in takewhile(lambda size: size <= MAX_BYTES_PER_OUTCOME, sizes))
    yield from zip(found[: max(1, num_fitting)], texts, strict=False)


def _of_block(run: RunDirectory, iteration: int, questions: QuestionSet, block: int) -> Iterator[_Drawn]:
    directory = run.iteration(iteration)
    by_id = {question.id: question for question in questions.block(block)}
    corrections: dict[tuple[str, int], list[Trajectory | None]] = defaultdict(list)
    for correction in _read(directory / "corrections", block):
        corrections[correction.question_id, correction.attempt].append(correction)
    for attempt in _read(directory / "attempts", block):
        alone = [] if attempt.correct else [None]
        for found in corrections.get((attempt.question_id, attempt.attempt), alone):
            which = (found.task, found.sample) if found else ()
            yield _Drawn(
                draw=uniform("example", iteration, attempt.question_id, attempt.attempt, *which),
                outcome=outcome_of(attempt, found),
                question=by_id[attempt.question_id],
                attempt=attempt,
                correction=found,
            )


def _read(directory: Path, block: int) -> list[Trajectory]:
    """Of a phase that is under way, some parts are missing yet."""
    path = part_path(directory, block)
    return read_part(path, Trajectory) if path.exists() else []


def _example(drawn: _Drawn) -> Example:
    question, attempt, correction = drawn.question, drawn.attempt, drawn.correction
    changed = correction if correction and correction.answer and correction.first_wrong_step is not None else None
    return Example(
        iteration=attempt.iteration,
        question_id=question.id,
        stem=_shown(question.stem),
        options=[f"{option.letter}. {_shown(option.text)}" for option in question.options],
        key=question.key,
        labels=question.labels,
        attempt=_shown(attempt.trace),
        answer=attempt.answer,
        correction=_shown(correction.trace) if correction else "",
        corrected_answer=correction.answer if correction else "",
        outcome=drawn.outcome,
        differ_at=_first_difference(attempt.trace, changed.trace) if changed else None,
    )


def _shown(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text) - MAX_CHARS:,} more characters)"


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
