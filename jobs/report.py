"""Writes the report of a run, however far it is: `medcritical report runs/demo`."""

import argparse
import sys
from pathlib import Path

from jobs.cli import run_job, say

SUMMARY = "write the report of a run as one HTML page, also while it goes on"
EXAMPLES = ("medcritical report runs/demo", "medcritical report runs/demo --out demo.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR", help="the run's directory, as runs/demo")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it; report.html in the run by default")


def run(args: argparse.Namespace) -> int:
    """Raises UserError if there is no run, if a file of it is damaged, or if the report cannot be written."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.report import write_report
    from medcritical_ray.run.directory import RunDirectory

    directory = RunDirectory(args.run)
    path = args.out or directory.report_file
    if not directory.exists():
        raise UserError(f"there is no run in {args.run}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: no such directory: {path.parent}: make it, or choose another place")
    if path.is_dir():
        raise UserError(f"--out {path}: is a directory: must be a file")
    try:
        write_report(directory, path)
    except OSError as error:
        if error.errno is None:  # it says already what cannot be written
            raise
        raise UserError(f"--out {path} cannot be written: {error.strerror}") from None
    say(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
