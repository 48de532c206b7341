"""The page: a run's figures, plots and trajectories, put into the template."""

import json
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, UndefinedError
from markupsafe import Markup

from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_path
from medcritical_ray.phases import PHASES, TRAININGS, drops_of, iteration_name, phase_name
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.report.figures import MAX_VALUES, RunFigures, run_figures
from medcritical_ray.report.plots import plot_accuracy, plot_seconds, plot_training
from medcritical_ray.report.trajectories import OUTCOMES, examples
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.iterations import Iteration
from medcritical_ray.run.questions import iteration_questions, split_path
from medcritical_ray.run.state import RunState, run_config
from medcritical_ray.statistics import percent, with_interval

_DAMAGES = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, UndefinedError, ValueError)
"""What comes of figures that are not where they were written, or are of another type."""


def write_report(run: RunDirectory, path: Path) -> None:
    """Writes the report of a run, whatever its state. Raises UserError if there is no run, or a file is damaged."""
    try:
        text = render_report(run)
    except UserError:
        raise
    except _DAMAGES as error:
        raise UserError(f"{run.path}: no report can be made of it, since a file of it is damaged: {error!r}") from error
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(run: RunDirectory) -> str:
    """The report as one HTML page that loads nothing from elsewhere. What models wrote is escaped."""
    figures = run_figures(run)
    funnel = funnel_table(figures.iterations)
    shown, totals = examples(run, _with_questions(run, figures))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "proportion": proportion, "number": number, "phase_name": phase_name}
    return environment.from_string(_resource("page.html")).render(
        figures=figures,
        outcome=outcome_sentence(figures),
        history=history_sentence(figures.state, datetime.now(UTC)),
        plots=_plots(run, figures),
        self_iterations=[each.name for each in figures.iterations if each.number],
        funnel=funnel,
        most=max((num or 0 for _, nums in funnel for num in nums), default=0) or 1,
        drops=drops_table(figures.iterations),
        phases=[phase for phase in PHASES if any(phase in each.phases for each in figures.iterations)],
        record=json.dumps(figures.record, indent=2, ensure_ascii=False),
        outcomes=[(outcome, totals[outcome]) for outcome in OUTCOMES if outcome in totals],
        num_shown=len(shown),
        max_values=MAX_VALUES,
        examples=Markup(f"[{','.join(shown)}]"),
        style=Markup(_resource("style.css")),
        reader=Markup(_resource("reader.js")),
    )


def outcome_sentence(figures: RunFigures) -> str:
    """What the run came to so far, in a sentence or two."""
    standing = standing_sentence(figures.state)
    if figures.final is None or figures.final.test is None:
        base = figures.base and f"The base student answers {percent(figures.base['accuracy']['value'])} rightly; no"
        return f"{standing}{base or 'No'} policy has been evaluated yet."
    accuracy = proportion(figures.final.test["accuracy"])
    if figures.gain is None or figures.iterations[0].test is None:
        return f"{standing}After {figures.final.name}, {accuracy} of the test questions are answered rightly."
    before = percent(figures.iterations[0].test["accuracy"]["value"])
    return (
        f"{standing}Accuracy on {figures.gain.num_questions:,} test questions went from {before} after stage 1 to "
        f"{accuracy} after {figures.final.name}: {100 * figures.gain.gain:+.1f} points (McNemar's exact test, "
        f"p = {figures.gain.p_value:.2g})."
    )


def standing_sentence(state: RunState) -> str:
    """How an unfinished run stands, with a blank after it; nothing of one that is finished."""
    where = f"{iteration_name(state.iteration)}, {phase_name(state.phase) or 'begin'}"
    cause = f" ({state.cause})" if state.cause else ""
    return {
        "finished": "",
        "in progress": f"In progress, by {state.holder}; done so far: {where}. ",
        "failed": f"Failed in {where}: {state.cause} ",
        "stopped": f"Stopped after {where}{cause}; it can be resumed. ",
    }[state.state]


def history_sentence(state: RunState, now: datetime) -> str:
    """What an unfinished run's reader must know of the page's age, and how the run goes on; and of interruptions and
    engines that a run has outlived."""
    parts = [f"The run was resumed {times(state.num_resumed)}."] if state.num_resumed else []
    if state.num_engine_deaths:
        retired = f", {state.num_engines_retired} of them for good" if state.num_engines_retired else ""
        parts.append(f"Engines died {times(state.num_engine_deaths)}{retired}.")
    if state.state == "in progress":
        parts.append(f"This page was written at {now:%Y-%m-%d %H:%M} UTC; the run may have gone on, or ended, since.")
    elif state.state != "finished" and state.command:
        parts.append(f"Resume it with: {state.command}")
    return " ".join(parts)


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def funnel_table(iterations: list[Iteration]) -> list[tuple[str, list[int | None]]]:
    """From attempts to pairs: stage -> how many, in each self-iteration; None where that has not come so far."""
    funnels = [_funnel(each) for each in iterations if each.number]
    stages = dict.fromkeys(stage for counts in funnels for stage in counts)
    return [(stage, [counts.get(stage) for counts in funnels]) for stage in stages]


def _funnel(each: Iteration) -> dict[str, int]:
    """Stage -> how many, of one iteration, as far as its phases are done."""
    generated, corrected, paired = (each.phases.get(name, {}) for name in ("generate", "correct", "pair"))
    stages: dict[str, int] = {}
    if generated:
        stages |= {
            "attempts": generated["num_trajectories"],
            "right": generated.get("solve_right", 0),
            "wrong, with an answer": generated.get("solve_wrong", 0),
            "unfinished or unreadable": generated.get("solve_unreadable", 0),
        }
    if corrected:
        tasks = Counter(
            {task: sum(v for k, v in corrected.items() if k.startswith(task)) for task in ("repair", "check")}
        )
        stages |= {
            "repairs": tasks["repair"],
            "repairs that reach the key": corrected.get("repair_right", 0),
            "checks": tasks["check"],
        }
    if paired:
        stages |= {
            "candidates": sum(paired["candidates"].values()),
            "pairs made": sum(paired["pairs"].values()),
            "pairs of earlier iterations": paired["earlier_pairs"],
        }
    return stages


def drops_table(iterations: list[Iteration]) -> list[tuple[str, list[int]]]:
    """Phase and reason -> how much was dropped for it, in stage 1 and in each self-iteration."""
    drops = [drops_of(each.phases) for each in iterations]
    reasons = dict.fromkeys(reason for dropped in drops for reason in dropped)
    return [(reason, [dropped.get(reason, 0) for dropped in drops]) for reason in reasons]


def proportion(share: dict[str, Any] | None) -> str:
    """Such as "88.8 % [86.7, 90.6]"; a dash where nothing was counted."""
    return with_interval(share) if share and share["n"] else "–"


def number(value: float | None) -> str:
    """As many digits as tell something; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "< 0.1" if value else "0"


def _plots(run: RunDirectory, figures: RunFigures) -> dict[str, Any]:
    evaluated = [(each.name, each.test["accuracy"], bool(each.is_adopted)) for each in figures.iterations if each.test]
    base = [("base", figures.base["accuracy"], True)] if figures.base else []
    names, results = [each.name for each in figures.iterations], [each.phases for each in figures.iterations]
    seconds = {phase: [phases.get(phase, {}).get("seconds", 0.0) for phases in results] for phase in PHASES}
    trainings = {}
    for each in figures.iterations:
        for phase in TRAININGS:
            if steps := run.steps(each.number, phase):
                title = f"{each.name}, {'draft' if phase == 'draft' else 'SFT' if each.number == 0 else 'DPO'}"
                trainings[title] = Markup(plot_training(title, steps))
    return {
        "accuracy": Markup(plot_accuracy([*base, *evaluated])) if base or evaluated else None,
        "seconds": Markup(plot_seconds(names, seconds)) if any(map(any, seconds.values())) else None,
        "trainings": trainings,
    }


def _with_questions(run: RunDirectory, figures: RunFigures) -> list[tuple[int, QuestionSet]]:
    config = run_config(run, "have it reported by the version that made the run")
    numbers = [each.number for each in figures.iterations if each.number]
    if not numbers:
        return []
    train = QuestionSet.whole(split_path(run, "train"), config.questions.block_size)
    return [(number, iteration_questions(config, train, number)) for number in numbers]


def _resource(name: str) -> str:
    return files("medcritical_ray.report").joinpath(name).read_text(encoding="utf-8")
