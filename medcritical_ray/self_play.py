"""Stage 2: the policy plays against its own corrected mistakes.

Written in the method's words (MedCritical, arXiv 2509.23368): generate, grade, correct, pair, train, publish,
broadcast, evaluate. Who does the work, and where, is the team's affair.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medcritical_ray.asked import attempts_at, corrections_of
from medcritical_ray.assessment import assess, correct_by_question
from medcritical_ray.errors import Diverged, RunFailed
from medcritical_ray.files import sha256_of
from medcritical_ray.game import Game
from medcritical_ray.guards import DIVERGED, Rejection, judge_evaluation, judge_training
from medcritical_ray.iteration_pairs import pair_iteration
from medcritical_ray.model_files import is_adapter
from medcritical_ray.play import Play, Player, write_nothing
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.policies import MANIFEST, Policy, PolicyStore
from medcritical_ray.run.pruning import prune_policies
from medcritical_ray.run.questions import iteration_questions
from medcritical_ray.statistics import compare
from medcritical_ray.teaching.iteration_reviews import review_iteration

TOO_FEW_PAIRS = "too few pairs to train on"


def self_play(game: Game, policy: Policy, after_each: Callable[[], None] = lambda: None) -> Policy:
    """Plays every self-iteration from `policy`, the student of stage 1; returns the policy adopted in the end.

    `after_each` is called after each iteration that is played now. Raises RunFailed after one whose policy is rejected,
    if the config says so.
    """
    store, version = PolicyStore(game.run.policies), policy.version
    for iteration in range(1, game.config.run.num_iterations + 1):
        if not game.run.is_finished(iteration):
            game.run.finish_iteration(iteration, self_iteration(game, iteration, store.get(version)))
            prune_policies(game.run, game.config.run.keep_policies)
            after_each()
            stop_if_rejected(game, iteration)
        version = game.run.metrics(iteration)["adopted_version"]
    prune_policies(game.run, game.config.run.keep_policies)  # for a run that was killed right before
    return store.get(version)


def stop_if_rejected(game: Game, iteration: int) -> None:
    rejected = game.run.metrics(iteration).get("rejected")
    if rejected and game.config.guards.on_rejection == "stop":
        raise RunFailed(
            f"iteration {iteration}: the policy was rejected: {rejected['why']}; the run stops, as guards.on_rejection "
            f"says; with the policy before it, it goes on by: {game.resume_command}"
        )


def self_iteration(game: Game, iteration: int, policy: Policy) -> dict[str, Any]:
    """Plays one; returns its metrics, of which `adopted_version` says which policy goes on."""
    attempts = attempts_by(game, iteration, policy)
    corrections = corrections_by(game, iteration, policy, attempts)
    generated = game.once(
        iteration, "generate", lambda: generate(game, attempts, corrections), ahead=[corrections.directory]
    )
    corrected = game.once(iteration, "correct", lambda: correct(game, iteration, corrections), ["generate"])
    paired = game.once(iteration, "pair", lambda: pair(game, iteration), ["generate", "correct"])
    metrics = {"generate": generated, "correct": corrected, "pair": paired}
    if sum(paired["pairs"].values()) + paired["earlier_pairs"] < game.config.dpo.batch_size:
        return {**metrics, "adopted_version": policy.version, "reason": TOO_FEW_PAIRS}
    metrics["train"] = game.once(iteration, "train", lambda: train(game, iteration, policy), ["pair"])
    if rejection := judge_training(metrics["train"], game.config.guards):
        return {**metrics, **adopted(policy.version, rejection)}
    metrics["publish"] = game.once(iteration, "publish", lambda: publish(game, iteration, policy), ["train"])
    candidate = PolicyStore(game.run.policies).get(iteration)
    metrics["broadcast"] = game.once(iteration, "broadcast", lambda: broadcast(game, candidate))
    metrics["evaluate"] = game.once(iteration, "evaluate", lambda: evaluate(game, iteration, candidate))
    return {**metrics, **choose(game, iteration, policy)}


def attempts_by(game: Game, iteration: int, policy: Policy) -> Play:
    """K sampled attempts per question, graded by the key alone."""
    questions = _questions(game, iteration)
    return Play(
        game,
        game.run.iteration(iteration) / "attempts",
        Player("generator", policy.version, policy.path),
        game.config.generate.sampling,
        questions.num_blocks,
        attempts_at(questions, iteration=iteration, num_attempts=game.config.generate.num_attempts),
    )


def corrections_by(game: Game, iteration: int, policy: Policy, attempts: Play) -> Play:
    """M sampled repairs of every wrong attempt, and checks of a share of the right ones."""
    questions = _questions(game, iteration)
    corrector = PolicyStore(game.run.policies).get(0) if game.config.correct.policy == "initial" else policy
    return Play(
        game,
        game.run.iteration(iteration) / "corrections",
        Player("corrector", corrector.version, corrector.path),
        game.config.correct.sampling,
        questions.num_blocks,
        corrections_of(questions, attempts.directory, game.config),
        follows=attempts,
    )


def generate(game: Game, attempts: Play, corrections: Play) -> dict[str, Any]:
    """Has the attempts written; a corrector with engines of its own begins before all are."""
    begins = game.team.plays_apart and game.config.correct.policy != "teacher" and game.config.pairs.take_corrections
    return attempts.finish(beside=[corrections] if begins else [])


def correct(game: Game, iteration: int, corrections: Play) -> dict[str, Any]:
    """The corrections that are still missing; or the teacher's repairs; or none, where pairs are made of none."""
    questions = _questions(game, iteration)
    if not game.config.pairs.take_corrections:
        return write_nothing(corrections.directory, questions.num_blocks)
    if game.config.correct.policy == "teacher":
        return review_iteration(game, iteration, questions)
    return corrections.finish()


def pair(game: Game, iteration: int) -> dict[str, Any]:
    return pair_iteration(game, iteration, _questions(game, iteration))


def train(game: Game, iteration: int, policy: Policy) -> dict[str, Any]:
    """DPO from the policy on the iteration's pairs. One that diverges is over, too, and leaves no policy."""
    directory = game.run.iteration(iteration)
    reference = policy if game.config.dpo.reference == "previous" else PolicyStore(game.run.policies).get(0)
    versions = {"policy": policy.version, "reference": reference.version}
    try:
        figures = game.team.train_dpo(
            policy.path,
            reference.path,
            directory / "pairs",
            directory / "trained",
            name=f"dpo-{iteration:03d}",
            on_step=game.step_keeper(iteration, "train"),
        )
    except Diverged as error:
        return {**versions, DIVERGED: str(error)}
    return {**versions, **figures}


def publish(game: Game, iteration: int, policy: Policy) -> dict[str, Any]:
    """The trained policy becomes the version of this iteration's number."""
    trained = game.run.iteration(iteration) / "trained"
    base = policy.manifest.base or policy.path.name
    return publish_trained(PolicyStore(game.run.policies), trained, version=iteration, parent=policy.version, base=base)


def publish_trained(
    store: PolicyStore, trained: Path, *, version: int, parent: int | None, base: str
) -> dict[str, Any]:
    """Publishes what a training left behind: full weights, which stand alone, or an adapter, which sits on `base`."""
    adapter = is_adapter(trained)
    policy = store.publish(
        version,
        trained,
        parent=parent,
        metrics={},
        kind="adapter" if adapter else "full",
        base=base if adapter else None,
    )
    return {"version": policy.version, "kind": policy.manifest.kind, "manifest": sha256_of(policy.path / MANIFEST)}


def broadcast(game: Game, policy: Policy) -> dict[str, Any]:
    """The running engines take the new policy; those of a corrector that stays as it is keep theirs."""
    game.team.serve("generator", policy.version, policy.path)
    if game.config.correct.policy == "latest":
        game.team.serve("corrector", policy.version, policy.path)
    return {"version": policy.version}


def evaluate(game: Game, iteration: int, policy: Policy) -> dict[str, Any]:
    directory = game.run.iteration(iteration) / "evaluation"
    return assess(game, iteration, policy.version, policy.path, directory)


def choose(game: Game, iteration: int, policy: Policy) -> dict[str, Any]:
    """Adopts the candidate unless a rule rejects it by what policy and candidate answered on dev."""
    numbers = policy.version, iteration
    for number in numbers:
        game.run.check_left(number, "evaluate")
    before, after = (game.run.result(number, "evaluate")["dev"] for number in numbers)
    comparison = compare(
        *(correct_by_question(game.dev, game.run.iteration(number) / "evaluation" / "dev") for number in numbers)
    )
    rejection = judge_evaluation(before, after, comparison, game.config)
    version = policy.version if rejection else iteration
    return {"dev_comparison": comparison.to_dict(), **adopted(version, rejection)}


def adopted(version: int, rejection: Rejection | None) -> dict[str, Any]:
    """Which policy goes on, and why it is not the new one, if that was rejected."""
    return {"adopted_version": version, **({"rejected": rejection.to_dict()} if rejection else {})}


def _questions(game: Game, iteration: int) -> QuestionSet:
    return iteration_questions(game.config, game.train, iteration)
