"""The study: what self-correction adds, shown by arms that share a student of stage 1 and differ in one thing each.

The arms are those that the method must be compared with to mean anything: from the same student, on the same questions,
with the same limit of training examples.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json
from medcritical_ray.prepare import split_path
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run_directory import STAGE_ONE, RunDirectory
from medcritical_ray.statistics import Mean, compare, pool

Arms = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Arm -> the keys, by part of the config, in which its config differs."""

TRUNK = "sft"
"""The arm that is stage 1 alone, from which all others go on. Every study has it."""

_BOTH = {"correction": 0.5, "own": 0.5}
ARMS: Arms = {
    "self_dpo": {"pairs": {"shares": {"correction": 1.0}}},
    "teacher_dpo": {"pairs": {"shares": {"correction": 1.0}}, "correct": {"policy": "teacher"}},
    "own_pairs_dpo": {"pairs": {"shares": {"own": 1.0}}},
    "both_dpo": {"pairs": {"shares": _BOTH}},
    "rft": {"pairs": {"shares": _BOTH}, "dpo": {"preference_weight": 0.0, "likelihood_weight": 1.0}},
}
"""DPO on self-corrections; on the teacher's corrections; on own right against own wrong attempts; on both
self-corrections and own attempts; SFT on the chosen texts of both."""

WITH_SELF_CORRECTION = ("self_dpo", "both_dpo")
_COLUMNS = (
    *("arm", "accuracy", "each seed", "over SFT", "p", "pairs", "chosen right line by line", "right broken"),
    *("wrong repaired", "teacher calls", "teacher tokens", "price", "rollout tokens", "training tokens", "seconds"),
)
_PAIRED_COLUMNS = ("arm", "over", "points", "only it right", "only the other", "p, all seeds", "p, each seed")


def read_arms(path: Path, config: Config) -> Arms:
    """Arms from a TOML file: a table for each, with the keys in which it differs, as dpo.beta = 0.2.

    Raises UserError unless each makes a valid config.
    """
    try:
        arms: Arms = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--arms {path}: cannot be read as TOML: {error}") from None
    if not arms or TRUNK in arms:
        raise UserError(f"--arms {path}: must have tables of arms, none of them named {TRUNK}, which every study has")
    for arm in arms:
        _config_of(config, arm, arms, path)
    return arms


def _config_of(config: Config, arm: str, arms: Arms, path: Path) -> Config:
    try:
        return arm_config(config, arm, arms, config.run.seed, Path())
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"no such part: {error}"
        raise UserError(f"--arms {path}: {arm}: {reason}") from None


def arm_config(config: Config, arm: str, arms: Arms, seed: int, out: Path) -> Config:
    """The config of one arm's run: what all arms have in common, and the arm's own keys."""
    values = config.model_dump()
    place = arm_run(out, seed, arm).path
    run = {"seed": seed, "name": place.name, "directory": str(place.parent)}
    own_keys = arms[arm] if arm != TRUNK else {"run": {"num_iterations": 0}}
    for part, keys in [("run", run), *own_keys.items()]:
        values[part] |= keys
    return Config.model_validate(values)


def arm_run(out: Path, seed: int, arm: str) -> RunDirectory:
    """Where an arm's run lies in the study's directory."""
    return RunDirectory(out / f"seed-{seed}" / arm)


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
    num_rounds = len(summary["pairs"])
    evaluation = run.iteration(summary["versions"]["final"]) / "evaluation" / "test"
    correct = correct_by_question(QuestionSet.whole(split_path(run, "test"), block_size=1000), evaluation)
    numbers = [STAGE_ONE] if arm == TRUNK else range(1, num_rounds + 1)
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
        "pairs": [[pairs["made"] for pairs in summary["pairs"]] for summary in summaries],
        "chosen_right_line_by_line": [summary["chosen_right_line_by_line"] for summary in summaries],
        "right_to_wrong": [final["right_to_wrong"] for final in finals],
        "wrong_to_right": [final["wrong_to_right"] for final in finals],
    }


def _final_test(summary: dict[str, Any]) -> dict[str, Any]:
    final = summary["versions"]["final"]
    figures: dict[str, Any] = summary["test"]["iterations"][final - 1] if final else summary["test"]["sft"]
    return figures


def _comparisons(arm: str, outcomes: dict[str, list[_Outcome]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arm over each other one: McNemar's exact test for each seed, and over all seeds' answers together."""
    for other, per_seed_of_other in outcomes.items():
        if other != arm:
            pairs = zip(per_seed_of_other, outcomes[arm], strict=True)
            per_seed = [compare(theirs.correct, ours.correct) for theirs, ours in pairs]
            yield other, {**pool(per_seed).to_dict(), "p_values": [comparison.p_value for comparison in per_seed]}


def study_table(figures: dict[str, Any]) -> str:
    """The study as Markdown: a table of the arms, and how those with self-correction compare with the others."""
    num_test = figures["arms"][TRUNK]["num_test"]
    lines = [
        f"Accuracy on {num_test:,} test questions, seeds {', '.join(map(str, figures['seeds']))}: the mean with its",
        "95 % interval (Student's t over the seeds), and each seed's. The teacher's calls, tokens and price are sums",
        "over the seeds, all else is their mean. Pairs are those of one iteration. All but accuracy is of stage 2; the",
        f"seconds of `{TRUNK}`, which has none, are of stage 1.",
        "",
        _row(_COLUMNS),
        _row(["---"] * len(_COLUMNS)),
        *(_row(_cells(arm, row, figures["comparisons"].get(arm, {}))) for arm, row in figures["arms"].items()),
        "",
        _row(_PAIRED_COLUMNS),
        _row(["---"] * len(_PAIRED_COLUMNS)),
    ]
    for arm in filter(figures["comparisons"].get, WITH_SELF_CORRECTION):
        lines += [_row(_paired_cells(arm, *other)) for other in figures["comparisons"][arm].items()]
    return "\n".join(lines) + "\n"


def _cells(arm: str, row: dict[str, Any], comparisons: dict[str, Any]) -> list[str]:
    mean, over = row["mean_accuracy"], comparisons.get(TRUNK)
    cost = row["stage2_teacher_cost"]
    return [
        f"`{arm}`",
        f"{_percent(mean['value'])} [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}]",
        ", ".join(f"{100 * value:.1f}" for value in row["accuracy"]),
        *((f"{100 * over['gain']:+.1f}", f"{over['p_value']:.1g}") if over else ("", "")),
        _mean_text([sum(made.values()) for rounds in row["pairs"] for made in rounds]),
        _percent_of([share for rounds in row["chosen_right_line_by_line"] for r in rounds for share in r.values()]),
        _percent_of([share["value"] for share in row["right_to_wrong"]]),
        _percent_of([share["value"] for share in row["wrong_to_right"]]),
        f"{row['stage2_teacher_calls']:,}",
        f"{row['stage2_teacher_tokens']:,}",
        "unknown" if cost is None else f"{cost:.2f}",
        *(_mean_text(row[name]) for name in ("rollout_tokens", "training_tokens", "seconds")),
    ]


def _paired_cells(arm: str, other: str, paired: dict[str, Any]) -> list[str]:
    p_values = ", ".join(f"{p_value:.1g}" for p_value in paired["p_values"])
    gain, only = f"{100 * paired['gain']:+.1f}", (f"{paired['only_b']:,}", f"{paired['only_a']:,}")
    return [f"`{arm}`", f"`{other}`", gain, *only, f"{paired['p_value']:.1g}", p_values]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percent_of(shares: Sequence[float]) -> str:
    return _percent(sum(shares) / len(shares)) if shares else ""


def _mean_text(values: Iterable[float]) -> str:
    values = list(values)
    return f"{sum(values) / len(values):,.0f}" if values else ""
