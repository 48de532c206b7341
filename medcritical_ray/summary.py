"""What a run came to: summary.json for scripts, and a table for people."""

from typing import Any

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.game import Game
from medcritical_ray.phases import PHASES, TRAININGS, drops_of
from medcritical_ray.run.directory import STAGE_ONE
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.statistics import compare
from medcritical_ray.teaching.reviews import Charges


def summarise(game: Game, final_version: int) -> dict[str, Any]:
    """The content of summary.json. Accuracies are those on test, between 0 and 1; pairs are per iteration."""
    stage_one = game.run.metrics(STAGE_ONE)
    iterations = [game.run.metrics(number) for number in range(1, game.config.run.num_iterations + 1)]
    tests = [_test_figures(metrics) for metrics in iterations]
    sft = stage_one["evaluate"]["test"]
    final = game.run.metrics(final_version)["evaluate"]["test"]
    comparison = compare(_correct(game, STAGE_ONE), _correct(game, final_version))
    return {
        "accuracy": {
            "base": stage_one["evaluate_base"]["test"]["accuracy"]["value"],
            "sft": sft["accuracy"]["value"],
            "iterations": [test["accuracy"]["value"] if test else None for test in tests],
            "final": final["accuracy"]["value"],
        },
        "num_test": game.test.num_questions,
        "p_value_final_vs_sft": comparison.p_value,
        "teacher": {"stage_1": _charges([stage_one]), "stage_2": _charges(iterations)},
        "pairs": [_pair_figures(metrics["pair"]) for metrics in iterations],
        "dropped": {"stage_1": drops_of(stage_one), "iterations": [drops_of(metrics) for metrics in iterations]},
        "seconds": _seconds([stage_one, *iterations]),
        "tokens": {"stage_1": _tokens([stage_one]), "stage_2": _tokens(iterations)},
        "versions": {
            "published": PolicyStore(game.run.policies).published(),
            "adopted": [metrics["adopted_version"] for metrics in iterations],
            "rejected": [metrics.get("rejected") for metrics in iterations],
            "final": final_version,
            "packages": game.run.record().packages,
        },
        "test": {
            "base": stage_one["evaluate_base"]["test"],
            "sft": sft,
            "iterations": tests,
        },
        "chosen_right_line_by_line": [m["pair"]["chosen_right_line_by_line"] for m in iterations],
        "correction_share_explained_by_guessing": [
            m["pair"]["correction_share_explained_by_guessing"] for m in iterations
        ],
    }


def _charges(all_metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """What the teacher took in all phases together; nothing where there was none."""
    phases = [result for metrics in all_metrics for result in metrics.values() if isinstance(result, dict)]
    return sum((Charges(**result["teacher"]) for result in phases if "teacher" in result), Charges()).to_dict()


def _pair_figures(paired: dict[str, Any]) -> dict[str, Any]:
    return {"made": paired["pairs"], "from_earlier_iterations": paired["earlier_pairs"], "dropped": paired["dropped"]}


def _test_figures(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """None for an iteration that trained nothing."""
    return metrics["evaluate"]["test"] if "evaluate" in metrics else None


def _correct(game: Game, iteration: int) -> dict[str, bool]:
    return correct_by_question(game.test, game.run.iteration(iteration) / "evaluation" / "test")


def _tokens(all_metrics: list[dict[str, Any]]) -> dict[str, int]:
    """Tokens written by policies that attempt and correct, and tokens read in training. Evaluations are left out, and
    what a teacher wrote, which stands in its charges."""
    phases = {"rollout": ("generate", "correct"), "training": TRAININGS}
    return {
        kind: sum(_num_tokens(metrics.get(name, {})) for metrics in all_metrics for name in names)
        for kind, names in phases.items()
    }


def _num_tokens(result: dict[str, Any]) -> int:
    return 0 if "teacher" in result else result.get("num_tokens", 0)


def _seconds(all_metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds per phase, in the order in which phases run, summed over stage 1 and the iterations."""
    results = {phase: [metrics[phase] for metrics in all_metrics if phase in metrics] for phase in PHASES}
    return {phase: sum(each["seconds"] for each in found) for phase, found in results.items() if found}
