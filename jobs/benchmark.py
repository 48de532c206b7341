"""Measures this program beside what one would take instead, row by row: `medcritical benchmark`."""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from jobs.benchmarks import MODULES
from jobs.benchmarks.figures import Benchmark, row_of
from jobs.cli import note, run_job, say
from jobs.parts import options

SUMMARY = "measure rollouts, trainings, broadcasts and whole iterations beside what one would take instead"
EXAMPLES = ("medcritical benchmark", "medcritical benchmark --only 1,5 --json benchmark.json --repeats 7")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rows = ", ".join(f"{number} {name}" for number, name in MODULES.items())
    parser.add_argument("--only", default="", metavar="N,N", help=f"rows to measure; default: all of {rows}")
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="times that each is done, in turn; default: 5, by which all rows take an hour and a half",
    )
    options.add_json_file(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a line for each figure, once it is known; with --json, the rows are kept after each of them, and other
    rows of the file stay as they are. Raises UserError."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import check_writable, write_json

    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: must be at least 1")
    numbers = numbers_of(args.only)
    rows = rows_kept_in(args.json) if args.json else {}
    if args.json:
        check_writable(args.json, "--json")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers would give way to others, and peers would not
    say(_HEAD)
    for number in numbers:
        note(f"measuring row {number}, {MODULES[number]}")
        rows[number] = _measured(number, args.repeats)
        say(*_lines(rows[number]))
        if args.json:
            write_json(args.json, {"rows": [rows[each] for each in sorted(rows)]})
    return 0


def _measured(number: int, repeats: int) -> dict[str, Any]:
    benchmark = cast(Benchmark, importlib.import_module(f"jobs.benchmarks.{MODULES[number]}"))
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="medcritical-bench-", ignore_cleanup_errors=True) as scratch:
        row = row_of(number, benchmark.measure(repeats, Path(scratch)))
    return {**row, "num_cpus": os.cpu_count(), "load_before": load, "seconds": round(time.monotonic() - started, 1)}


def numbers_of(only: str) -> list[int]:
    from medcritical_ray.errors import UserError

    words = [word.strip() for word in only.split(",") if word.strip()]
    if unknown := [word for word in words if word not in map(str, MODULES)]:
        raise UserError(f"--only {only}: {', '.join(unknown)} is no row; rows are {', '.join(map(str, MODULES))}")
    return sorted({int(word) for word in words}) or list(MODULES)


def rows_kept_in(file: Path) -> dict[int, dict[str, Any]]:
    """Those that an earlier call has kept."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import read_json

    if not file.exists():
        return {}
    try:
        return {row["id"]: row for row in read_json(file)["rows"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} holds no result of this command: name another file") from None


_HEAD = f"{'row':>3}{'ours':>9}{'peer':>9}  {'unit':14}{'ratio':>6}  {'target':14}{'met':5}figure"


def _lines(row: dict[str, Any]) -> list[str]:
    """A line for each figure of a row, the row's own first."""
    return [_line(str(row["id"]), row), *(_line("", figure) for figure in row["also"])]


def _line(number: str, figure: dict[str, Any]) -> str:
    """The text comes last, since it may be long."""
    values = f"{told(figure['ours']):>9}{told(figure['peer']):>9}  {figure['unit']:14}{told(figure['ratio']):>6}"
    target, verdict = goal_and_verdict(figure)
    text = figure["name"] + (f", against {figure['against']}" if figure["against"] else "")
    why = f" ({figure['why']})" if "why" in figure else ""
    return f"{number:>3}{values}  {target:14}{verdict:5}{text}{why}"


def goal_and_verdict(figure: dict[str, Any]) -> tuple[str, str]:
    """What a figure is to reach, and whether it does by itself: empty where nothing is asked for, or was measured."""
    if figure["target"] is None:
        return "", ""
    met = figure.get("met_itself", figure["met"])
    verdict = {True: "yes", False: "no", None: ""}[met]
    return f"{figure['reach']} {figure['target']:g}", verdict


def told(value: float | None) -> str:
    """A value in three digits or so."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
