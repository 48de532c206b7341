"""What policies are asked, block by block of the questions: for a phase that has it written, and for whoever looks
afterwards whether it was."""

from collections.abc import Callable
from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.evaluation import GREEDY_ATTEMPT
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import Turn, attempt_turns, correction_turns
from medcritical_ray.run.tables import part_path, read_part
from medcritical_ray.seeds import uniform

Turns = Callable[[int], list[Turn]]
"""The turns of a block, by its number."""


def attempts_at(questions: QuestionSet, *, iteration: int, num_attempts: int) -> Turns:
    return lambda block: attempt_turns(questions.block(block), iteration=iteration, num_attempts=num_attempts)


def corrections_of(questions: QuestionSet, attempts: Path, config: Config) -> Turns:
    """Repairs of the wrong attempts of an iteration and checks of a share of the right ones; of a teacher, the repairs
    alone; none, where pairs are made of none."""
    if not config.pairs.take_corrections:
        return lambda block: []
    checked_share = 0.0 if config.correct.policy == "teacher" else config.correct.checked_share

    def turns(block: int) -> list[Turn]:
        return correction_turns(
            questions.block(block),
            read_part(part_path(attempts, block), Trajectory),
            num_corrections=config.correct.num_repairs,
            checked_share=checked_share,
        )

    return turns


def answers_to(questions: QuestionSet, *, iteration: int) -> Turns:
    """One answer to each question of an evaluation."""
    return attempts_at(questions, iteration=iteration, num_attempts=1)


def samples_of(questions: QuestionSet, *, iteration: int, num_samples: int) -> Turns:
    """Further attempts at each question of an evaluation."""
    all_attempts = attempts_at(questions, iteration=iteration, num_attempts=num_samples + 1)
    return lambda block: [turn for turn in all_attempts(block) if turn.attempt_number != GREEDY_ATTEMPT]


def checks_of(questions: QuestionSet, answers: Path, share: float) -> Turns:
    """A check of every answer of an evaluation, and a repair of every wrong one, for a share of the questions."""

    def turns(block: int) -> list[Turn]:
        attempts = read_part(part_path(answers, block), Trajectory)
        shown = [attempt for attempt in attempts if uniform("corrected", attempt.question_id) < share]
        return correction_turns(
            questions.block(block), shown, num_corrections=1, checked_share=1.0, wrong_are_checked=True
        )

    return turns
