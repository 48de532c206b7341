"""The tables and sentences that a command ends with."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medcritical_ray.phases import iteration_name, phase_name
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.questions import QUESTIONS_PHASE, contamination_path, read_contamination
from medcritical_ray.statistics import percent, with_count, with_interval


def print_contamination(console: Console, run: RunDirectory) -> None:
    """How many rows were set aside, what the run's splits and files share, and where examples stand if they share any;
    nothing for a run that was started before such counts were kept."""
    if not contamination_path(run).exists():
        return
    read = run.result(STAGE_ONE, QUESTIONS_PHASE)["read"]
    if read["quarantined"]:
        told = f"{read['quarantined']:,} of {read['rows']:,} rows of questions set aside"
        console.print(f"{told}: {run.quarantine / 'questions.parquet'}", soft_wrap=True)
    found = read_contamination(run)
    examples = [f"examples: {contamination_path(run)}"] if found.is_any else []
    console.print(*found.lines(), *examples, sep="\n", soft_wrap=True)


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """The table that a run ends with."""
    test = summary["test"]
    rows = [("base", test["base"])]
    rows += [(iteration_name(number), figures) for number, figures in enumerate([test["sft"], *test["iterations"]])]
    title = f"Accuracy on {summary['num_test']:,} test questions"
    console.print(_accuracy_table(title, rows), _pairs_table(summary), _drops_table(summary), _seconds_table(summary))
    gain = summary["accuracy"]["final"] - summary["accuracy"]["sft"]
    console.print(
        f"Final policy, the last that was adopted by what it answers on dev: version "
        f"{summary['versions']['final']}, {100 * gain:+.1f} points over stage 1 on "
        f"{summary['num_test']:,} test questions (McNemar p = {summary['p_value_final_vs_sft']:.2g})."
    )
    for number, rejected in enumerate(summary["versions"].get("rejected", ()), 1):
        if rejected:
            console.print(f"Iteration {number}: policy rejected: {rejected['why']}.", highlight=False, soft_wrap=True)
    for stage, charges in summary["teacher"].items():
        if charges["prompt_tokens"]:  # of a teacher by rules there is nothing to tell
            console.print(f"Teacher in {phase_name(stage)}: {charges_line(charges)}.", soft_wrap=True)


def print_next(console: Console, run: RunDirectory) -> None:
    """Where the report of a finished run lies, and what to do with its policies."""
    path, name = shlex.quote(shown(run.path)), shlex.quote(f"{run.path.name}-model")
    steps = f"`medcritical serve --run {path}`, `medcritical export --run {path} --out {name}`"
    console.print(f"Report: {shown(run.report_file)}", f"Next: {steps}", sep="\n", soft_wrap=True)


def shown(path: Path) -> str:
    """As short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def print_stage_one(console: Console, metrics: dict[str, Any], plays_on: str) -> None:
    """What stage 1 alone came to, and the command that plays stage 2."""
    base, sft = (metrics[phase]["test"] for phase in ("evaluate_base", "evaluate"))
    title = f"Accuracy on {sft['num_questions']:,} test questions"
    console.print(_accuracy_table(title, [("base", base), (iteration_name(0), sft)]))
    console.print(f"Version 0 is published. Stage 2: {plays_on}", soft_wrap=True)


def charges_line(charges: dict[str, Any]) -> str:
    """What a teacher took, in words."""
    cost = "unknown" if charges["cost"] is None else f"{charges['cost']:.4g}"
    return (
        f"{charges['calls']:,} calls, {charges['prompt_tokens']:,} prompt tokens, {charges['completion_tokens']:,} "
        f"written tokens, cost {cost}"
    )


def print_evaluation(console: Console, result: dict[str, Any], labels: Sequence[str]) -> None:
    """The figures of an evaluation, one column per policy, those by label among them, and how the policies compare."""
    policies = {"policy": result["policy"]} | {
        f"against {number}": other for number, other in enumerate(result["against"], 1)
    }
    rows = [_evaluation_rows(figures) | _label_rows(figures, labels) for figures in policies.values()]
    table = Table("", *policies)
    for figure in dict.fromkeys(figure for row in rows for figure in row):
        table.add_row(figure, *(row.get(figure, "-") for row in rows))
    read = result["questions"]
    reasons = ", ".join(f"{reason}: {num:,}" for reason, num in read["reasons"].items())
    lines = [f"{name}: {figures['directory']}" for name, figures in policies.items()]
    lines.append(f"questions: {read['file']}, {read['loaded']:,} of {read['rows']:,} rows{reasons and f' ({reasons})'}")
    console.print("\n".join(lines), soft_wrap=True)
    console.print(table)
    for number, other in enumerate(result["against"], 1):
        paired = other["comparison"]
        console.print(
            f"policy over against {number}: {100 * paired['gain']:+.1f} points on {paired['num_questions']:,} "
            f"questions; {paired['only_policy']:,} only right for policy, {paired['only_against']:,} only for against "
            f"(McNemar p = {paired['p_value']:.2g})",
            soft_wrap=True,
        )


def _evaluation_rows(figures: dict[str, Any]) -> dict[str, str]:
    names = {
        "accuracy": "accuracy",
        "before_correction": "before self-correction",
        "self_corrected": "after self-correction",
        "self_consistency": "majority of samples",
        "exact_set": "exact set (AB, …)",
        "parse_rate": "parsed",
        "finish_rate": "finished",
        "agreement_rate": "letter fits its text",
        "wrong_to_right": "repaired",
        "right_to_wrong": "broken",
    }
    rows = {shown: with_count(figures[name]) for name, shown in names.items() if figures.get(name)}
    rows["mean tokens"] = f"{figures['mean_tokens']:.1f}"
    trained_on = figures["trained_on"]
    rows["stems seen in training"] = "unknown: no run known" if trained_on is None else f"{trained_on.num_stems:,}"
    if "mean_accuracy" in figures:
        rows["one sample"] = with_interval(figures["mean_accuracy"])
    if "wrong_to_right_by_guessing" in figures:
        rows["repaired, by guessing"] = percent(figures["wrong_to_right_by_guessing"])
    if "pass_at" in figures:
        rows |= {f"pass@{k}": percent(chance) for k, chance in figures["pass_at"].items()}
        rows["entropy, bits"] = f"{figures['answer_entropy_bits']:.2f}"
    return rows


def _label_rows(figures: dict[str, Any], labels: Sequence[str]) -> dict[str, str]:
    return {
        f"{label}: {value}": with_count(accuracy)
        for label in labels
        for value, accuracy in figures["by_label"][label].items()
    }


def _accuracy_table(title: str, rows: Sequence[tuple[str, dict[str, Any] | None]]) -> Table:
    """With the columns that some row has a figure for."""
    cells = {name: _accuracy_cells(figures) if figures else {"accuracy": "not trained"} for name, figures in rows}
    columns = list(dict.fromkeys(column for each in cells.values() for column in each))
    table = Table("policy", *columns, title=title, caption=_CORRECTED if "repaired" in columns else None)
    for name, each in cells.items():
        table.add_row(name, *(each.get(column, "-") for column in columns))
    return table


_CORRECTED = (
    "repaired: wrong answers that a correction turns right, of those corrected; by guessing: if each correction "
    "guessed another option; broken: right answers that a check turns wrong"
)


def _share(proportion: dict[str, Any]) -> str:
    return f"{percent(proportion['value'])} of {proportion['n']:,}"


def _accuracy_cells(figures: dict[str, Any]) -> dict[str, str]:
    """Column -> text."""
    accuracy, passes = figures["accuracy"], figures.get("pass_at")
    cells = {
        "accuracy": percent(accuracy["value"]),
        "95 % interval": f"{percent(accuracy['low'])} to {percent(accuracy['high'])}",
        "parsed": percent(figures["parse_rate"]["value"]),
    }
    if passes:
        most = max(passes, key=int)
        cells[f"pass@{most}"] = percent(passes[most])
    if "wrong_to_right" in figures:
        cells["repaired"] = _share(figures["wrong_to_right"])
        cells["by guessing"] = percent(figures["wrong_to_right_by_guessing"])
        cells["broken"] = _share(figures["right_to_wrong"])
    return cells


def _pairs_table(summary: dict[str, Any]) -> Table:
    table = Table("pairs", *(f"iteration {n}" for n in range(1, len(summary["pairs"]) + 1)), title="Pairs made")
    for source in sorted({source for pairs in summary["pairs"] for source in pairs["made"]}):
        table.add_row(source, *(f"{pairs['made'].get(source, 0):,}" for pairs in summary["pairs"]))
    for source in sorted({source for shares in summary["chosen_right_line_by_line"] for source in shares}):
        shares = (shares.get(source) for shares in summary["chosen_right_line_by_line"])
        table.add_row(f"chosen right line by line: {source}", *(percent(s) if s is not None else "-" for s in shares))
    return table


def _drops_table(summary: dict[str, Any]) -> Table:
    """Of summaries of earlier versions, those of pairing alone."""
    iterations = [{f"pair: {why}": num for why, num in pairs["dropped"].items()} for pairs in summary["pairs"]]
    drops = summary.get("dropped", {"stage_1": {}, "iterations": iterations})
    columns = [drops["stage_1"], *drops["iterations"]]
    table = Table("phase: reason", *map(iteration_name, range(len(columns))), title="Dropped")
    for reason in dict.fromkeys(reason for column in columns for reason in column):
        table.add_row(reason, *(f"{column.get(reason, 0):,}" for column in columns))
    return table


def _seconds_table(summary: dict[str, Any]) -> Table:
    table = Table("phase", "seconds", title="Seconds per phase, all iterations together")
    for phase, seconds in summary["seconds"].items():
        table.add_row(phase_name(phase), f"{seconds:,.1f}")
    table.add_row("all", f"{sum(summary['seconds'].values()):,.1f}", style="bold")
    return table
