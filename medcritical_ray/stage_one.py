"""Stage 1: the student learns from the teacher: templates and synthetic mistakes first, then its own mistakes.

The policy that comes of it, version 0, is generator and corrector at once.
"""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from medcritical_ray.asked import attempts_at
from medcritical_ray.assessment import assess
from medcritical_ray.game import BASE_VERSION, DRAFT_VERSION, Game
from medcritical_ray.play import Play, Player
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Demonstration, Trajectory
from medcritical_ray.run.directory import STAGE_ONE
from medcritical_ray.run.policies import Policy, PolicyStore
from medcritical_ray.run.tables import iter_parts, part_path, part_paths, read_part, write_part
from medcritical_ray.self_play import broadcast, evaluate, publish_trained
from medcritical_ray.teaching.demonstrations import (
    CheckBalance,
    own_corrections,
    synthetic_corrections,
    template_demonstrations,
)
from medcritical_ray.teaching.distilled import read_charges
from medcritical_ray.teaching.reviews import Tally

CORRECT_PHASE = "correct"

PART_SIZE = 1000
"""Demonstrations in one parquet part."""


def stage_one(game: Game) -> Policy:
    """Evaluates the base student, trains version 0, and evaluates that."""
    directory = game.run.iteration(STAGE_ONE)
    metrics = {"evaluate_base": game.once(STAGE_ONE, "evaluate_base", lambda: evaluate_base(game))}
    metrics["teach"] = game.once(STAGE_ONE, "teach", lambda: teach(game))
    trained = directory / "drafted"
    training = "draft"
    metrics["draft"] = game.once(
        STAGE_ONE, "draft", lambda: train(game, "draft", directory / "teaching", trained), ["teach"]
    )
    if game.config.sft.own_attempts:
        metrics["generate"] = game.once(STAGE_ONE, "generate", lambda: make_mistakes(game), ["draft"])
        metrics[CORRECT_PHASE] = game.once(
            STAGE_ONE, CORRECT_PHASE, lambda: correct_mistakes(game), ["teach", "generate"]
        )
        training, trained = "train", directory / "trained"
        metrics["train"] = game.once(
            STAGE_ONE, "train", lambda: train(game, "train", directory / "lessons", trained), [CORRECT_PHASE]
        )
    metrics["publish"] = game.once(STAGE_ONE, "publish", lambda: publish(game, trained, game.run.policies), [training])
    policy = PolicyStore(game.run.policies).get(0)
    metrics["broadcast"] = game.once(STAGE_ONE, "broadcast", lambda: broadcast(game, policy))
    metrics["evaluate"] = game.once(STAGE_ONE, "evaluate", lambda: evaluate(game, STAGE_ONE, policy))
    if not game.run.is_finished(STAGE_ONE):
        game.run.finish_iteration(STAGE_ONE, {**metrics, "adopted_version": 0})
    return policy


def evaluate_base(game: Game) -> dict[str, Any]:
    directory = game.run.iteration(STAGE_ONE) / "evaluation_base"
    return assess(game, STAGE_ONE, BASE_VERSION, game.student, directory)


def teach(game: Game) -> dict[str, Any]:
    """The teacher's templates, and its corrections of synthetic mistakes.

    Where templates were distilled, what that took is what the teacher took.
    """
    tally = Tally()
    questions = taught_questions(game)

    def demonstrations() -> Iterator[Demonstration]:
        for block in range(questions.num_blocks):
            yield from template_demonstrations(game.teacher, questions.block(block), tally)
            yield from synthetic_corrections(
                game.teacher,
                questions.block(block),
                per_question=game.config.sft.synthetic_corrections,
                seed=game.config.run.seed,
                tally=tally,
            )

    written = write_demonstrations(game.run.iteration(STAGE_ONE) / "teaching", demonstrations())
    path = game.config.teacher.path
    charges = read_charges(Path(path)) if path else game.teacher.charges(STAGE_ONE, tally)
    return {**written, "dropped": dict(tally.drops), "teacher": charges.to_dict()}


def make_mistakes(game: Game) -> dict[str, Any]:
    """The draft's own attempts at the questions whose attempts the teacher corrects."""
    directory = game.run.iteration(STAGE_ONE)
    questions = corrected_questions(game)
    publish(game, directory / "drafted", directory / "draft")
    game.run.keep()  # engines on other machines fetch it from there
    return Play(
        game,
        directory / "attempts",
        Player("generator", DRAFT_VERSION, PolicyStore(directory / "draft").get(0).path),
        game.config.generate.sampling,
        questions.num_blocks,
        attempts_at(questions, iteration=STAGE_ONE, num_attempts=game.config.sft.own_attempts),
    ).finish()


def correct_mistakes(game: Game) -> dict[str, Any]:
    """What the student of stage 1 is trained on in the end: the teaching, and corrections of its own mistakes."""
    directory, questions = game.run.iteration(STAGE_ONE), corrected_questions(game)
    tally, balance = Tally(), CheckBalance(keeps_per_mistake=game.config.sft.keeps_per_mistake)

    def demonstrations() -> Iterator[Demonstration]:
        yield from iter_parts(directory / "teaching", Demonstration)
        for block in range(questions.num_blocks):
            yield from own_corrections(
                game.reviewer,
                questions.block(block),
                read_part(part_path(directory / "attempts", block), Trajectory),
                balance=balance,
                max_per_question=game.config.sft.max_own_corrections,
                tally=tally,
            )

    written = write_demonstrations(directory / "lessons", demonstrations())
    charges = game.reviewer.charges(STAGE_ONE, tally)
    return {**written, "dropped": dict(tally.drops), "teacher": charges.to_dict()}


def train(game: Game, phase: str, demonstrations: Path, out: Path) -> dict[str, Any]:
    """SFT from the base student."""
    on_step = game.step_keeper(STAGE_ONE, phase)
    return game.team.train_sft(game.student, demonstrations, out, name=f"sft-{phase}", on_step=on_step)


def publish(game: Game, trained: Path, store: Path) -> dict[str, Any]:
    return publish_trained(PolicyStore(store), trained, version=0, parent=None, base=_base(game, store))


def _base(game: Game, store: Path) -> str:
    """The student, as an adapter's base: in the run it is named from there, since runs may move."""
    student, run = game.student.resolve(), game.run.path.resolve()
    return os.path.relpath(student, store.resolve()) if student.is_relative_to(run) else str(student)


def taught_questions(game: Game) -> QuestionSet:
    return game.train.window(0, game.config.teacher.num_questions)


def corrected_questions(game: Game) -> QuestionSet:
    return game.train.window(0, game.config.teacher.num_questions_corrected)


def write_demonstrations(directory: Path, demonstrations: Iterator[Demonstration]) -> dict[str, Any]:
    """Writes demonstrations in parts, and counts them by task."""
    tasks: Counter[str] = Counter()
    index = 0
    while rows := list(islice(demonstrations, PART_SIZE)):
        write_part(directory, index, rows, Demonstration)
        tasks.update(row.task for row in rows)
        index += 1
    for part in part_paths(directory)[index:]:  # of a try that was killed, and had more to say
        part.unlink()
    return {"demonstrations": dict(tasks)}
