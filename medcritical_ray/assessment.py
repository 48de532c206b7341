"""Evaluates a policy on dev and test through the engines: answers, samples, and corrections of its own answers."""

from pathlib import Path
from typing import Any, NamedTuple

from medcritical_ray.config import SamplingConfig
from medcritical_ray.evaluation import GREEDY_ATTEMPT, AnswerMeter, Evaluation, Evaluator
from medcritical_ray.game import BASE_VERSION, Game, Role, Session
from medcritical_ray.grading import guess_chance
from medcritical_ray.play import play
from medcritical_ray.policies import PolicyStore
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import Turn, attempt_turns, correction_turns
from medcritical_ray.seeds import uniform
from medcritical_ray.tables import iter_parts, part_path, read_part


class Player(NamedTuple):
    """A policy in the role that it is evaluated in."""

    role: Role
    version: int
    policy_dir: Path


def assess(game: Game, iteration: int, version: int, policy_dir: Path, directory: Path) -> dict[str, Any]:
    """The figures of one policy on dev and on test, whose trajectories are kept below `directory`."""
    solver = Player("generator", version, policy_dir)
    corrector = _corrector_of(game, solver)
    return {
        split: assess_on(game, iteration, solver, corrector, questions, directory / split).to_dict()
        for split, questions in (("dev", game.dev), ("test", game.test))
    }


def assess_on(
    session: Session, iteration: int, solver: Player, corrector: Player | None, questions: QuestionSet, directory: Path
) -> Evaluation:
    """Greedy answers decide accuracy; samples, pass@K; greedy corrections of the greedy answers, the corrector."""
    num_samples = session.config.evaluate.num_passes
    sampling = session.config.generate.sampling

    def answers(block: int) -> list[Turn]:
        return attempt_turns(questions.block(block), iteration=iteration, num_attempts=1)

    def corrections(block: int) -> list[Turn]:
        attempts = read_part(part_path(directory / "answers", block), Trajectory)
        share = session.config.evaluate.corrected_share
        shown = [attempt for attempt in attempts if uniform("corrected", attempt.question_id) < share]
        return correction_turns(
            questions.block(block), shown, num_corrections=1, checked_share=1.0, wrong_are_checked=True
        )

    def samples(block: int) -> list[Turn]:
        turns = attempt_turns(questions.block(block), iteration=iteration, num_attempts=num_samples + 1)
        return [turn for turn in turns if turn.attempt_number != GREEDY_ATTEMPT]

    plays = [("answers", solver, _greedy(sampling), answers)]
    if corrector:
        plays.append(("corrections", corrector, _greedy(session.config.correct.sampling), corrections))
    if num_samples:
        plays.append(("samples", solver, sampling, samples))
    for name, (role, version, policy_dir), how, turns in plays:
        session.team.serve(role, version, policy_dir)
        play(session, directory / name, role, how, version, questions.num_blocks, turns)
    return read_evaluation(questions, directory, num_samples=num_samples)


def _corrector_of(game: Game, solver: Player) -> Player | None:
    """Who corrects a policy's answers: itself if the corrector is trained along, else the policy of stage 1.

    Nobody those of the base student, which has not been taught to.
    """
    if solver.version == BASE_VERSION:
        return None
    if game.config.correct.policy != "latest" and solver.version > 0:
        return Player("corrector", 0, PolicyStore(game.run.policies).get(0).path)
    return solver


def _greedy(sampling: SamplingConfig) -> SamplingConfig:
    return sampling.model_copy(update={"temperature": 0.0})


def read_evaluation(questions: QuestionSet, directory: Path, *, num_samples: int) -> Evaluation:
    """The figures that the trajectories below `directory` amount to."""
    evaluator = Evaluator({question.id: guess_chance(question) for question in questions}, num_samples=num_samples)
    for name in ("answers", "corrections", "samples"):
        for trajectory in iter_parts(directory / name, Trajectory):
            evaluator.update(trajectory)
    return evaluator.result()


def correct_by_question(questions: QuestionSet, directory: Path) -> dict[str, bool]:
    """Question id -> whether the greedy answer below `directory` is right."""
    meter = AnswerMeter(question.id for question in questions)
    for answer in iter_parts(directory / "answers", Trajectory):
        meter.update(answer)
    return meter.correct_by_question()
