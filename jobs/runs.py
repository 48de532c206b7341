"""Lists runs, and what to do next with each, or verifies them: `medcritical runs [verify] [DIR ...]`."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import run_job, say
from jobs.parts import options
from medcritical_ray.errors import UserError
from medcritical_ray.names import policy_name

if TYPE_CHECKING:
    from rich.console import Console

    from medcritical_ray.run.listing import RunRow
    from medcritical_ray.run.verification import Verification

SUMMARY = "list runs: how far each is, its accuracy, and the command to go on with; or verify their files"
EXAMPLES = (
    "medcritical runs",
    "medcritical runs study /shared/runs --json",
    "medcritical runs list runs/demo",
    "medcritical runs verify runs/demo                # hashes, rows, markers, policies; exit code 1 if one is wrong",
)

DEFAULT = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [-h] [--json] [{' | '.join(_ACTIONS)}] [DIR ...]"
    what = parser.add_argument_group(
        "what to do",
        "list    a row for each run, and what to do next with it (default)\n"
        "verify  compare every file of the runs with the hash that was recorded with it, and every row with the\n"
        "        questions; a line for what is wrong, and exit code 1 if anything is",
    )
    what.add_argument(
        "directories", nargs="*", metavar="DIR", help=f"a run, or a directory that holds some; default: {DEFAULT}"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Does what the first word says, or else lists. Raises UserError if a directory is not there."""
    named = args.directories[:1] and args.directories[0] in _ACTIONS
    action = _ACTIONS[args.directories[0]] if named else list_runs
    return action([Path(each) for each in args.directories[1 if named else 0 :]], as_json=args.json)


def list_runs(directories: list[Path], *, as_json: bool) -> int:
    """Prints a row for each run below the directories. Raises UserError if one is not there."""
    from jobs.parts.terminal import wide_console
    from medcritical_ray.run.listing import run_row

    rows = [run_row(path) for path in _paths_of_runs(directories)]
    if as_json:
        say(json.dumps([_plain(row) for row in rows], ensure_ascii=False))
    elif rows:
        _print_rows(wide_console(), rows)
    else:
        say(f"{_no_run_in(directories)}: `medcritical demo` makes one")
    return 0


def verify_runs(directories: list[Path], *, as_json: bool) -> int:
    """Prints what is wrong with each run below the directories, a line for each fault, and a summary; returns 1 if
    anything is. Raises UserError if there is no run."""
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.run.verification import verify_run

    paths = _paths_of_runs(directories)
    if not paths:
        raise UserError(f"{_no_run_in(directories)}: must be a run, or hold runs")
    verified = [verify_run(RunDirectory(path)) for path in paths]
    if as_json:
        say(json.dumps([_plain_verification(each) for each in verified], ensure_ascii=False))
    else:
        say(*(line for each in verified for line in _verification_lines(each)))
    return int(any(each.faults for each in verified))


_ACTIONS: dict[str, Callable[..., int]] = {"list": list_runs, "verify": verify_runs}


def _paths_of_runs(directories: list[Path]) -> list[Path]:
    from medcritical_ray.run.listing import runs_below

    for directory in directories:
        if not directory.is_dir():
            fault = "is a file" if directory.exists() else "no such directory"
            raise UserError(f"{directory}: {fault}: must be the directory of a run, or one that holds runs")
    return list(dict.fromkeys(path for place in directories or [DEFAULT] for path in runs_below(place)))


def _no_run_in(directories: list[Path]) -> str:
    return f"no run in {', '.join(map(str, directories or [DEFAULT]))}"


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
        "moved_from": progress.moved_from,
        "num_resumed": progress.num_resumed,
        "version": row.version,
        "accuracy": row.accuracy.model_dump() if row.accuracy else None,
        "rejected": {number: rejected.model_dump() for number, rejected in row.rejected.items()},
        "time": progress.time,
        "next": next_commands(row),
    }


def _plain_verification(found: "Verification") -> dict[str, Any]:
    return {
        "run": str(found.run),
        "faults": [{"file": str(fault.file), "fault": fault.what} for fault in found.faults],
        "notes": found.notes,
        "files": found.num_files,
        "rows": found.num_rows,
        "policies": found.num_policies,
        "pruned": found.num_pruned,
    }


def _verification_lines(found: "Verification") -> list[str]:
    policies = f"{found.num_policies:,} policies" + (f" ({found.num_pruned:,} pruned)" if found.num_pruned else "")
    compared = f"{found.num_files:,} files, {found.num_rows:,} rows and {policies} compared"
    num = len(found.faults)
    verdict = f"{num:,} {'fault' if num == 1 else 'faults'}" if num else "whole"
    lines = [*map(str, found.faults), *(f"{found.run}: not compared: {note}" for note in found.notes)]
    return [" ".join(line.split()) for line in [*lines, f"{found.run}: {verdict}; {compared}"]]


def _print_rows(console: "Console", rows: "list[RunRow]") -> None:
    """A table; below it, run by run, which policies were rejected, why it stands still or who works on it, and the
    likeliest command."""
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
    from medcritical_ray.phases import phase_name

    progress = row.progress
    done = [f"{progress.iteration} of {row.num_iterations}", phase_name(progress.phase)]
    version = "-" if row.version is None else policy_name(row.version)
    when = progress.time[:16].replace("T", " ") or "-"
    return [str(row.path), row.state, *(done if progress.phase else "--"), str(row.accuracy or "-"), version, when]


def _remarks(row: "RunRow") -> list[str]:
    said = row.fault or row.progress.cause or row.progress.holder
    rejected = [f"iteration {number}: policy rejected: {each.why}" for number, each in row.rejected.items()]
    moved = _of_moved(row) if row.progress.moved_from and row.state not in ("finished", "damaged") else ""
    steps = list(next_commands(row).values())
    return [f"{row.path}: {words}" for words in [*rejected, said, moved, *steps[:1]] if words]


def _of_moved(row: "RunRow") -> str:
    """Where a run that was moved or copied is resumed as it was begun: here, if a command can."""
    was = f"moved or copied from {row.progress.moved_from}"
    return was if row.progress.command else f"{was}: to be resumed, it must lie there"


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
