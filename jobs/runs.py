"""Lists runs, and what to do next with each: `medcritical runs [DIR ...]`."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import options
from jobs.cli import run_job, say
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from medcritical_ray.run_list import RunRow

SUMMARY = "list runs: how far each is, its accuracy, and the command to go on with"
EXAMPLES = (
    "medcritical runs",
    "medcritical runs study /shared/runs --json",
    "medcritical runs list runs/demo",
)

DEFAULT = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directories",
        nargs="*",
        metavar="DIR",
        help=f"a run, or a directory that holds some; default: {DEFAULT}. Before it may stand what to do: "
        f"{', '.join(_ACTIONS)} (default: {next(iter(_ACTIONS))})",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Does what the first word says, or else lists. Raises UserError if a directory is not there."""
    named = args.directories[:1] and args.directories[0] in _ACTIONS
    action = _ACTIONS[args.directories[0]] if named else list_runs
    return action([Path(each) for each in args.directories[1 if named else 0 :]], as_json=args.json)


def list_runs(directories: list[Path], *, as_json: bool) -> int:
    """Prints a row for each run below the directories. Raises UserError if one is not there."""
    from jobs.terminal import wide_console
    from medcritical_ray.run_list import run_row, runs_below

    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory: must be a run, or hold runs")
    places = directories or [DEFAULT]
    rows = [run_row(path) for path in dict.fromkeys(path for place in places for path in runs_below(place))]
    if as_json:
        say(json.dumps([_plain(row) for row in rows], ensure_ascii=False))
    elif rows:
        _print_rows(wide_console(), rows)
    else:
        say(f"no run in {', '.join(map(str, places))}: `medcritical demo` makes one")
    return 0


_ACTIONS: dict[str, Callable[..., int]] = {"list": list_runs}


def next_commands(row: "RunRow") -> dict[str, str]:
    """What can be done with a run, the likeliest first: name -> command, to be pasted into a shell."""
    path = shlex.quote(str(row.path))
    report = {"report": f"medcritical report {path}"}
    uses = {
        "export": f"medcritical export --run {path} --out {shlex.quote(row.path.resolve().name + '-model')}",
        "evaluate": f"medcritical evaluate --run {path} --questions FILE --out result.json",
    }
    if row.state == "damaged":
        return {}
    if row.state == "finished":
        return uses | report
    going_on = {} if row.state == "in progress" else {"resume": row.progress.command}
    return {name: command for name, command in (going_on | report | (uses if row.accuracy else {})).items() if command}


def _plain(row: "RunRow") -> dict[str, Any]:
    progress = row.progress
    return {
        "run": str(row.path),
        "state": row.state,
        "iteration": progress.iteration,
        "num_iterations": row.num_iterations,
        "phase": progress.phase,
        "cause": row.fault or progress.cause,
        "holder": progress.holder,
        "num_resumed": progress.num_resumed,
        "version": row.version,
        "accuracy": row.accuracy.model_dump() if row.accuracy else None,
        "time": progress.time,
        "next": next_commands(row),
    }


def _print_rows(console: "Console", rows: "list[RunRow]") -> None:
    """A table; below it, run by run, why one stands still or who works on it, and the likeliest command."""
    from rich.table import Column, Table

    table = Table(
        Column("run", overflow="fold"), "state", "iteration", "phase", "accuracy", "policy", "last event, UTC"
    )
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in rows:
        for text in _remarks(row):
            console.print(text, soft_wrap=True)


def _cells(row: "RunRow") -> list[str]:
    from jobs.terminal import phase_name

    progress = row.progress
    done = [f"{progress.iteration} of {row.num_iterations}", phase_name(progress.phase)]
    version = "-" if row.version is None else f"v{row.version:04d}"
    when = progress.time[:16].replace("T", " ") or "-"
    return [str(row.path), row.state, *(done if progress.phase else "--"), str(row.accuracy or "-"), version, when]


def _remarks(row: "RunRow") -> list[str]:
    said = row.fault or row.progress.cause or row.progress.holder
    steps = list(next_commands(row).values())
    return [f"{row.path}: {said}"] * bool(said) + steps[:1]


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
