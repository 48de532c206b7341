"""Has a teacher repair the wrong attempts of an iteration, block by block: the control arm of self-correction.

Pairs of a teacher's corrections are what SuperCorrect's second stage trains on (arXiv 2410.09008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcritical_ray.asked import corrections_of
from medcritical_ray.game import TEACHER_VERSION, Game
from medcritical_ray.play import count_trajectories
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import Completion, Turn
from medcritical_ray.run.tables import iter_parts, missing_parts, write_part
from medcritical_ray.teaching.reviews import Tally, Written, kind_of
from medcritical_ray.teaching.teachers import LACKS_TEXT, MISSES_KEY, submission


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """What became of one wrong attempt: why its repair does not count, if it does not, and the rounds that it took."""

    question_id: str
    attempt: int
    fault: str | None
    num_asked: int


def review_iteration(game: Game, iteration: int, questions: QuestionSet) -> dict[str, Any]:
    """Writes the repairs of every block that is still missing, as trajectories, and counts those of all blocks."""
    directory = game.run.iteration(iteration)
    turns_of = corrections_of(questions, directory / "attempts", game.config)
    for block in missing_parts(directory / "corrections", questions.num_blocks):
        turns = turns_of(block)
        handed_in = [submission(turn.question, turn.attempt, turn.task) for turn in turns]
        _write_block(directory, block, turns, game.reviewer.corrections(handed_in, iteration))
    tally = _tally(directory)
    charges = game.reviewer.charges(iteration, tally)
    counts = count_trajectories(directory / "corrections")
    return {**counts, "dropped": dict(tally.drops), "teacher": charges.to_dict()}


def _write_block(directory: Path, block: int, turns: Sequence[Turn], written: Sequence[Written]) -> None:
    """The corrections come last: a block that has them has all."""
    rows = list(zip(turns, written, strict=True))
    reviews = [
        Review(question_id=turn.question.id, attempt=turn.attempt_number, fault=each.fault, num_asked=each.num_asked)
        for turn, each in rows
    ]
    write_part(directory / "reviews", block, reviews, Review)
    trajectories = [turn.trajectory(_completion(each), TEACHER_VERSION) for turn, each in rows]
    write_part(directory / "corrections", block, trajectories, Trajectory)


def _completion(written: Written) -> Completion:
    """A repair that does not count for any other reason than its answer is as good as not finished: never chosen."""
    gradable = written.fault is None or written.fault.endswith((MISSES_KEY, LACKS_TEXT))
    return Completion(text=written.text, finished=gradable, num_tokens=written.num_tokens)


def _tally(directory: Path) -> Tally:
    tally = Tally()
    for trajectory in iter_parts(directory / "corrections", Trajectory):
        tally.add(trajectory.output)
    reviews = iter_parts(directory / "reviews", Review)
    tally.drops.update(kind_of(review.fault) for review in reviews if review.fault)
    return tally
