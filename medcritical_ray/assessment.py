"""Evaluates a policy on dev and test through the engines: answers, samples, and corrections of its own answers."""

from pathlib import Path
from typing import Any, NamedTuple

from medcritical_ray.asked import answers_to, checks_of, samples_of
from medcritical_ray.config import SamplingConfig
from medcritical_ray.evaluation import AnswerMeter, Evaluation, Evaluator
from medcritical_ray.game import BASE_VERSION, Game, Role, Session
from medcritical_ray.grading import guess_chance
from medcritical_ray.play import play
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.tables import iter_parts


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
    share = session.config.evaluate.corrected_share
    plays = [("answers", solver, _greedy(sampling), answers_to(questions, iteration=iteration))]
    if corrector:
        how = _greedy(session.config.correct.sampling)
        plays.append(("corrections", corrector, how, checks_of(questions, directory / "answers", share)))
    if num_samples:
        samples = samples_of(questions, iteration=iteration, num_samples=num_samples)
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
