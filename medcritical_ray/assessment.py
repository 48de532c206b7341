"""Evaluates a policy on dev and test through the engines: answers, samples, and corrections of its own answers."""

from pathlib import Path
from typing import Any

from medcritical_ray.asked import Turns, answers_to, checks_of, samples_of
from medcritical_ray.config import SamplingConfig
from medcritical_ray.evaluation import AnswerMeter, Evaluation, Evaluator
from medcritical_ray.game import BASE_VERSION, Game, Session
from medcritical_ray.grading import guess_chance
from medcritical_ray.play import Play, Player
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.tables import iter_parts


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
    """Greedy answers decide accuracy; samples, pass@K; greedy corrections of the greedy answers, the corrector, who
    begins before all of them are written if it has engines of its own."""
    config, num_samples = session.config, session.config.evaluate.num_passes

    def play(name: str, player: Player, how: SamplingConfig, turns: Turns, follows: Play | None = None) -> Play:
        return Play(session, directory / name, player, how, questions.num_blocks, turns, follows=follows)

    answers = play("answers", solver, _greedy(config.generate.sampling), answers_to(questions, iteration=iteration))
    solved, corrected = [answers], []
    if num_samples:
        turns = samples_of(questions, iteration=iteration, num_samples=num_samples)
        solved.append(play("samples", solver, config.generate.sampling, turns))
    if corrector:
        checks = checks_of(questions, answers.directory, config.evaluate.corrected_share)
        corrected.append(play("corrections", corrector, _greedy(config.correct.sampling), checks, answers))
    for each in solved:
        each.finish(beside=corrected if session.team.plays_apart else [])
    for each in corrected:
        each.finish()
    return read_evaluation(questions, directory, num_samples=num_samples)


def _corrector_of(game: Game, solver: Player) -> Player | None:
    """Who corrects a policy's answers: itself if the corrector is trained along, else the policy of stage 1.

    Nobody those of the base student, which has not been taught to.
    """
    if solver.version == BASE_VERSION:
        return None
    if game.config.correct.policy != "latest" and solver.version > 0:
        return Player("corrector", 0, PolicyStore(game.run.policies).get(0).path)
    return solver._replace(role="corrector")


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
