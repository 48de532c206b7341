"""Which trajectories an iteration must have, by its config and its questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medcritical_ray.asked import Turns, answers_to, attempts_at, checks_of, corrections_of, samples_of
from medcritical_ray.config import Config
from medcritical_ray.game import BASE_VERSION, DRAFT_VERSION, TEACHER_VERSION
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.questions import iteration_questions, split_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The trajectories in one directory, those of each block in a part, written in a phase by the policy of a version;
    None if that is not known."""

    directory: Path
    phase: str
    version: int | None
    num_blocks: int
    turns: Turns


def rollouts_of(run: RunDirectory, config: Config, iteration: int, playing: int | None) -> Iterator[Rollout]:
    """All of an iteration, also those that are yet to come; `playing` is the version that plays it."""
    train, dev, test = (
        QuestionSet.whole(split_path(run, split), config.questions.block_size) for split in ("train", "dev", "test")
    )
    directory = run.iteration(iteration)
    for split, questions in (("dev", dev), ("test", test)):
        if iteration == STAGE_ONE:
            yield from _evaluation(directory, "evaluate_base", split, questions, config, BASE_VERSION, None)
        corrector = iteration if config.correct.policy == "latest" else STAGE_ONE
        yield from _evaluation(directory, "evaluate", split, questions, config, iteration, corrector)
    if iteration == STAGE_ONE and config.sft.own_attempts:
        window = train.window(0, config.teacher.num_questions_corrected)
        attempts = attempts_at(window, iteration=iteration, num_attempts=config.sft.own_attempts)
        yield _rollout(directory / "attempts", "generate", DRAFT_VERSION, window, attempts)
    elif iteration != STAGE_ONE:
        window = iteration_questions(config, train, iteration)
        attempts = attempts_at(window, iteration=iteration, num_attempts=config.generate.num_attempts)
        yield _rollout(directory / "attempts", "generate", playing, window, attempts)
        by = {"latest": playing, "initial": STAGE_ONE, "teacher": TEACHER_VERSION}[config.correct.policy]
        corrections = corrections_of(window, directory / "attempts", config)
        yield _rollout(directory / "corrections", "correct", by, window, corrections)


def _evaluation(
    directory: Path,
    phase: str,
    split: str,
    questions: QuestionSet,
    config: Config,
    version: int | None,
    corrector: int | None,
) -> Iterator[Rollout]:
    """`phase` evaluates the policy of a version on a split; nobody corrects the base student."""
    iteration, num_samples = int(directory.name), config.evaluate.num_passes
    place = directory / phase.replace("evaluate", "evaluation") / split
    answers = answers_to(questions, iteration=iteration)
    yield _rollout(place / "answers", phase, version, questions, answers)
    if corrector is not None:
        checks = checks_of(questions, place / "answers", config.evaluate.corrected_share)
        yield _rollout(place / "corrections", phase, corrector, questions, checks)
    if num_samples:
        samples = samples_of(questions, iteration=iteration, num_samples=num_samples)
        yield _rollout(place / "samples", phase, version, questions, samples)


def _rollout(directory: Path, phase: str, version: int | None, questions: QuestionSet, turns: Turns) -> Rollout:
    return Rollout(directory=directory, phase=phase, version=version, num_blocks=questions.num_blocks, turns=turns)
