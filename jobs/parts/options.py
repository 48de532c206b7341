"""Options that several commands have, each with one name, one meaning and one help text."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from medcritical_ray.errors import UserError
from medcritical_ray.formats import Format
from medcritical_ray.names import typed_version

if TYPE_CHECKING:
    from medcritical_ray.run.directory import RunDirectory


def add_config(parser: argparse.ArgumentParser, what: str = "the run's config, a TOML file") -> None:
    """--config, which must be given, and --set."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=what)
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the config, as dpo.beta=0.2; repeatable",
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on with the run of this name where it stopped")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def add_json_file(parser: argparse.ArgumentParser) -> None:
    """--json of a command that takes so long that its result is to be kept."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to a file, as JSON")


def add_out(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """--out, which must be given; `metavar` is FILE or DIR."""
    parser.add_argument("--out", type=Path, required=True, metavar=metavar, help=what)


def add_policy(parser: argparse.ArgumentParser, without_run: str) -> None:
    """--run and --policy; see `policy_directory` and `run_and_version`."""
    parser.add_argument("--run", type=Path, metavar="DIR", help="a run's directory, such as runs/demo")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        help="with --run: a version, as v0003; default: the one that the last finished iteration adopted. "
        f"Without --run: {without_run}",
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """--format and --map, for jobs that read a file of questions."""
    parser.add_argument(
        "--format", choices=get_args(Format), default="auto", help="default: told from the name and the columns"
    )
    parser.add_argument(
        "--map",
        type=_field_and_column,
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="the column of a field (stem, options, key, explanation, id, labels), or several: --map options=A,B,C,D; "
        "repeatable",
    )


def mapping_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Field -> its column, or columns that are separated by commas."""
    fields = dict.fromkeys(field for field, _ in pairs)
    return {field: ",".join(column for name, column in pairs if name == field) for field in fields}


def policy_directory(args: argparse.Namespace) -> Path:
    """The directory of the policy that --run and --policy name. Raises UserError if they name none."""
    if args.run is None and args.policy is None:
        raise UserError("no policy is named: give --policy DIR, or --run DIR")
    if args.run is None:
        return Path(args.policy)
    from medcritical_ray.export.facts import chosen_policy

    run, version = run_and_version(args)
    return chosen_policy(run, version).path


def run_and_version(args: argparse.Namespace) -> "tuple[RunDirectory, int | None]":
    """The run that --run or a published policy's directory names, to read, and the version; None for the adopted one.

    Raises UserError if there is no run, or if the version has not the form of one.
    """
    if args.run is not None:
        return opened_run(args.run), _version(args.policy) if args.policy else None
    if args.policy is None:
        raise UserError("no run is named: give --run DIR, such as runs/demo")
    from medcritical_ray.run.provenance import find_run

    run = find_run(Path(args.policy))
    if run is None:
        raise UserError(f"--policy {args.policy}: is of no run: must be as runs/demo/policies/v0003, or give --run")
    return run, _version(Path(args.policy).name)


def opened_run(path: Path) -> "RunDirectory":
    """The run in a directory, to read. Raises UserError if there is none."""
    from medcritical_ray.run.directory import RunDirectory

    run = RunDirectory(path)
    if not run.exists():
        raise UserError(f"--run {path}: no run there: must be the directory of a run, such as runs/demo")
    return run


def command_line(command: str, args: argparse.Namespace, *words: object) -> str:
    """`medcritical <command>` with the config and overrides that it was given, and further words, for a shell."""
    overrides = [word for override in args.set for word in ("--set", override)]
    return shlex.join(map(str, ["medcritical", command, "--config", args.config, *overrides, *words]))


def _version(text: str) -> int:
    version = typed_version(text)
    if version is None:
        raise UserError(f"--policy {text}: must be a version of the run, as v0003")
    return version


def _field_and_column(text: str) -> tuple[str, str]:
    field, _, column = text.partition("=")
    if not field or not column:
        raise argparse.ArgumentTypeError(f"{text}: should be FIELD=COLUMN, as key=label")
    return field, column
