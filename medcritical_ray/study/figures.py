"""What a study came to: the content of study.json, from the finished runs of its arms."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.files import read_json
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.questions import split_path
from medcritical_ray.statistics import Mean, compare, gain_over_seeds
from medcritical_ray.study.arms import TRUNK, Arms, arm_run


class _Outcome(NamedTuple):
    """What one arm came to with one seed; `correct` tells each test question's greedy answer."""

    summary: dict[str, Any]
    correct: dict[str, bool]
    seconds: float


def study_figures(out: Path, arms: Arms, seeds: Sequence[int]) -> dict[str, Any]:
    """The content of study.json, from the finished runs of all arms and seeds. Raises UserError if one is missing."""
    outcomes = {arm: [_outcome(arm_run(out, seed, arm), arm) for seed in seeds] for arm in (TRUNK, *arms)}
    comparisons = {arm: dict(_comparisons(arm, outcomes)) for arm in arms}
    return {
        "seeds": list(seeds),
        "arms": {arm: _arm_figures(per_seed) for arm, per_seed in outcomes.items()},
        "comparisons": comparisons,
    }


def _outcome(run: RunDirectory, arm: str) -> _Outcome:
    """Seconds are those of stage 2; of the arm that has none, of stage 1."""
    summary = read_json(run.summary_file)
    num_iterations = len(summary["pairs"])
    evaluation = run.iteration(summary["versions"]["final"]) / "evaluation" / "test"
    correct = correct_by_question(QuestionSet.whole(split_path(run, "test")), evaluation)
    numbers = [STAGE_ONE] if arm == TRUNK else range(1, num_iterations + 1)
    return _Outcome(summary, correct, sum(_seconds(run.metrics(number)) for number in numbers))


def _seconds(metrics: dict[str, Any]) -> float:
    return sum(result["seconds"] for result in metrics.values() if isinstance(result, dict) and "seconds" in result)


def _arm_figures(outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    """One arm. Lists have a value for each seed; the teacher's calls, tokens and cost are sums over the seeds."""
    summaries = [outcome.summary for outcome in outcomes]
    accuracies = [summary["accuracy"]["final"] for summary in summaries]
    finals = [_final_test(summary) for summary in summaries]
    teacher = [summary["teacher"]["stage_2"] for summary in summaries]
    costs = [charges["cost"] for charges in teacher]
    return {
        "accuracy": accuracies,
        "mean_accuracy": Mean.of(accuracies).to_dict(),
        "interval": [[final["accuracy"]["low"], final["accuracy"]["high"]] for final in finals],
        "iterations": [summary["accuracy"]["iterations"] for summary in summaries],
        "num_test": summaries[0]["num_test"],
        "stage2_teacher_calls": sum(charges["calls"] for charges in teacher),
        "stage2_teacher_tokens": sum(c["prompt_tokens"] + c["completion_tokens"] for c in teacher),
        "stage2_teacher_cost": None if None in costs else sum(costs),
        "rollout_tokens": [summary["tokens"]["stage_2"]["rollout"] for summary in summaries],
        "training_tokens": [summary["tokens"]["stage_2"]["training"] for summary in summaries],
        "seconds": [outcome.seconds for outcome in outcomes],
        "pairs": [summary["pairs"] for summary in summaries],
        "chosen_right_line_by_line": [_share_right(summary) for summary in summaries],
        "right_to_wrong": [final.get("right_to_wrong") for final in finals],
        "wrong_to_right": [final.get("wrong_to_right") for final in finals],
    }


def _share_right(summary: dict[str, Any]) -> float | None:
    """Of all chosen traces of new pairs, those that are right in every step; None where nobody knows the steps."""
    iterations = list(zip(summary["pairs"], summary["chosen_right_line_by_line"], strict=True))
    judged = sum(pairs["made"][source] for pairs, shares in iterations for source in shares)
    right = sum(pairs["made"][source] * share for pairs, shares in iterations for source, share in shares.items())
    return right / judged if judged else None


def _final_test(summary: dict[str, Any]) -> dict[str, Any]:
    final = summary["versions"]["final"]
    figures: dict[str, Any] = summary["test"]["iterations"][final - 1] if final else summary["test"]["sft"]
    return figures


def _comparisons(arm: str, outcomes: dict[str, list[_Outcome]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arm over each other one: for each seed McNemar's exact test, and over the seeds a test by question."""
    for other, theirs in outcomes.items():
        if other != arm:
            ours = outcomes[arm]
            pairs = zip(theirs, ours, strict=True)
            per_seed = [compare(their.correct, our.correct) for their, our in pairs]
            rights = [[seed.correct for seed in seeds] for seeds in (theirs, ours)]
            yield other, {**gain_over_seeds(*rights).to_dict(), "per_seed": [each.to_dict() for each in per_seed]}
