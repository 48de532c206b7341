"""The study: what self-correction adds, shown by arms that share a student of stage 1 and differ in what they train on.

The arms are those that the method must be compared with to mean anything: from the same student, on the same questions,
with the same limit of training examples. Where the student corrects, pairs that keep its corrector up count against
that limit, too: the others have none to keep up, and may take more pairs of their source.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import ValidationError

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.config import Config
from medcritical_ray.config_files import describe_errors
from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json
from medcritical_ray.prepare import fingerprints, split_path
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run_directory import STAGE_ONE, RunDirectory
from medcritical_ray.run_record import check_resumable, new_record
from medcritical_ray.statistics import Mean, compare, gain_over_seeds

Arms = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Arm -> the keys, by part of the config, in which its config differs."""

TRUNK = "sft"
"""The arm that is stage 1 alone, from which all others go on. Every study has it."""

_SELF = {"correction": 0.75, "repair": 0.1, "keep": 0.15}
_BOTH = {"correction": 0.4, "own": 0.35, "repair": 0.1, "keep": 0.15}
ARMS: Arms = {
    "self_dpo": {"pairs": {"shares": _SELF}},
    "teacher_dpo": {"pairs": {"shares": {"correction": 1.0}}, "correct": {"policy": "teacher"}},
    "own_pairs_dpo": {"pairs": {"shares": {"own": 1.0}, "min_agreement": 1}},
    "both_dpo": {"pairs": {"shares": _BOTH}},
    "rft": {"pairs": {"shares": _BOTH}, "dpo": {"preference_weight": 0.0, "likelihood_weight": 1.0}},
}
"""DPO on self-corrections; on the teacher's corrections; on own right against own wrong attempts; on both
self-corrections and own attempts; SFT on the chosen texts of the same sources. Where the student corrects, a quarter of
the pairs keeps its corrector up. A right attempt needs no witness where there are no repairs: with one, the clinic's
student has too few pairs (docs/results.md)."""

WITH_SELF_CORRECTION = ("self_dpo", "both_dpo")

_OWN_PARTS = {"run", "generate", "correct", "pairs", "dpo"}
_SHARED_KEYS = {"dpo.method", "dpo.lora"}
"""Engines are started once, with or without room for adapters."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,60}")
_COLUMNS = (
    *("arm", "accuracy", "each seed", "over SFT", "p", "pairs", "chosen right line by line", "right broken"),
    *("wrong repaired", "teacher calls", "teacher tokens", "price", "rollout tokens", "training tokens", "seconds"),
)
_CORRECTOR_FIGURES = ("right_to_wrong", "wrong_to_right")
_PAIRED_COLUMNS = ("arm", "over", "points", "p", "points, each seed", "p, each seed")


def read_arms(path: Path) -> Arms:
    """Arms from a TOML file: a table for each, with the keys in which it differs, as dpo.beta = 0.2.

    Raises UserError for names that are no arms', and for keys of stage 1 or of machines, which all arms share.
    """
    try:
        arms: Arms = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--arms {path}: cannot be read as TOML: {error}") from None
    if not arms:
        raise UserError(f"--arms {path}: must have a table for each arm")
    for arm, keys in arms.items():
        if arm == TRUNK or not _PLAIN_NAME.fullmatch(arm):
            raise UserError(f"--arms {path}: {arm}: must be a name of letters, digits and _, and not {TRUNK}")
        if not isinstance(keys, dict) or not all(isinstance(part, dict) for part in keys.values()):
            raise UserError(f"--arms {path}: {arm}: must hold tables of keys, as [{arm}.dpo]")
        refused = sorted(set(_flat(keys)) & _SHARED_KEYS) + sorted(set(keys) - _OWN_PARTS)
        if refused or set(keys.get("run", {})) - {"num_iterations"}:
            raise UserError(
                f"--arms {path}: {arm}: may set keys of {', '.join(sorted(_OWN_PARTS - {'run'}))} and "
                f"run.num_iterations only, and not {' or '.join(sorted(_SHARED_KEYS))}: all else is common to the arms"
            )
    return arms


def _flat(keys: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{part}.{key}" for part, values in keys.items() for key in values]


def arm_configs(config: Config, arms: Arms, seeds: Iterable[int], out: Path) -> dict[tuple[int, str], Config]:
    """The config of every run, by seed and arm, in the order in which they are played.

    Raises UserError if the keys of an arm do not make a valid config.
    """
    return {(seed, arm): arm_config(config, arm, arms, seed, out) for seed in seeds for arm in (TRUNK, *arms)}


def arm_config(config: Config, arm: str, arms: Arms, seed: int, out: Path) -> Config:
    """The config of one arm's run: what all arms have in common, and the arm's own keys."""
    place = arm_run(out, seed, arm).path
    run = {"seed": seed, "name": place.name, "directory": str(place.parent)}
    own_keys = arms[arm] if arm != TRUNK else {"run": {"num_iterations": 0}}
    values = _merged(_merged(config.model_dump(), own_keys), {"run": run})
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe_errors(f"arm {arm}", error)) from None


def _merged(values: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Values with some keys changed; `shares` are replaced as a whole, since they sum to 1."""
    merged = dict(values)
    for key, value in keys.items():
        is_part = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "shares"
        merged[key] = _merged(merged[key], value) if is_part else value
    return merged


def is_finished(run: RunDirectory, config: Config) -> bool:
    """Whether a run with this config is there and finished. Raises UserError if one with another config is there."""
    if not run.exists():
        return False
    check_resumable(
        run.record(), new_record(config.model_dump(mode="json"), {"run": config.run.seed}, fingerprints(config))
    )
    return run.summary_file.exists()


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
        "pairs": [summary["pairs"] for summary in summaries],
        "chosen_right_line_by_line": [_share_right(summary) for summary in summaries],
        "right_to_wrong": [final.get("right_to_wrong") for final in finals],
        "wrong_to_right": [final.get("wrong_to_right") for final in finals],
    }


def _share_right(summary: dict[str, Any]) -> float | None:
    """Of all chosen traces of new pairs, those that are right in every step; None where nobody knows the steps."""
    rounds = list(zip(summary["pairs"], summary["chosen_right_line_by_line"], strict=True))
    judged = sum(pairs["made"][source] for pairs, shares in rounds for source in shares)
    right = sum(pairs["made"][source] * share for pairs, shares in rounds for source, share in shares.items())
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


def study_table(figures: dict[str, Any]) -> str:
    """The study as Markdown: a table of the arms, and how the leading arms compare with the others."""
    num_test = figures["arms"][TRUNK]["num_test"]
    lines = [
        f"Accuracy on {num_test:,} test questions, seeds {', '.join(map(str, figures['seeds']))}: the mean, from two",
        "seeds on with its 95 % interval (Student's t over the seeds), and each seed's. p is of a permutation test",
        "over the questions, each with all its seeds; of single seeds, of McNemar's exact test. The teacher's calls,",
        "tokens and price are sums over the seeds, all else is their mean. Pairs are those that one iteration trains",
        f"on. All but accuracy is of stage 2; the seconds of `{TRUNK}`, which has none, are of stage 1. Of phases",
        "that were resumed they are those of the last process.",
        "",
        _row(_COLUMNS),
        _row(["---"] * len(_COLUMNS)),
        *(_row(_cells(arm, row, figures["comparisons"].get(arm, {}))) for arm, row in figures["arms"].items()),
        "",
        _row(_PAIRED_COLUMNS),
        _row(["---"] * len(_PAIRED_COLUMNS)),
    ]
    for arm in leading_arms(figures["comparisons"]):
        lines += [_row(_paired_cells(arm, *other)) for other in figures["comparisons"][arm].items()]
    return "\n".join(lines) + "\n"


def leading_arms(arms: Iterable[str]) -> list[str]:
    """The arms that are compared with all others: those with self-correction, or else the first of other arms."""
    arms = list(arms)
    return [arm for arm in WITH_SELF_CORRECTION if arm in arms] or arms[:1]


def accuracy_text(row: dict[str, Any]) -> str:
    """The mean over the seeds, with its interval if there are several."""
    mean = row["mean_accuracy"]
    interval = f" [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}]" if mean["n"] > 1 else ""
    return f"{_percent(mean['value'])}{interval}"


def _cells(arm: str, row: dict[str, Any], comparisons: dict[str, Any]) -> list[str]:
    over, cost = comparisons.get(TRUNK), row["stage2_teacher_cost"]
    return [
        f"`{arm}`",
        accuracy_text(row),
        ", ".join(f"{100 * value:.1f}" for value in row["accuracy"]),
        *((f"{100 * over['gain']:+.1f}", f"{over['p_value']:.1g}") if over else ("", "")),
        _mean_text(_num_trained(pairs) for rounds in row["pairs"] for pairs in rounds),
        _percent_of(row["chosen_right_line_by_line"]),
        *(_percent_of([s["value"] if s and s["n"] else None for s in row[name]]) for name in _CORRECTOR_FIGURES),
        f"{row['stage2_teacher_calls']:,}",
        f"{row['stage2_teacher_tokens']:,}",
        "unknown" if cost is None else f"{cost:.2f}",
        *(_mean_text(row[name]) for name in ("rollout_tokens", "training_tokens", "seconds")),
    ]


def _num_trained(pairs: dict[str, Any]) -> int:
    return sum(pairs["made"].values()) + pairs["from_earlier_iterations"]


def _paired_cells(arm: str, other: str, paired: dict[str, Any]) -> list[str]:
    gains = ", ".join(f"{100 * seed['gain']:+.1f}" for seed in paired["per_seed"])
    p_values = ", ".join(f"{seed['p_value']:.1g}" for seed in paired["per_seed"])
    return [f"`{arm}`", f"`{other}`", f"{100 * paired['gain']:+.1f}", f"{paired['p_value']:.1g}", gains, p_values]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percent_of(shares: Iterable[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return _percent(fmean(known)) if known else ""


def _mean_text(values: Iterable[float]) -> str:
    values = list(values)
    return f"{fmean(values):,.0f}" if values else ""
