"""Runs a job on a cluster, after all has been checked that can be from here:
`medcritical submit -- self-play --config FILE`."""

import argparse
import importlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import COMMANDS, module_name, parser_of, run_job, say

if TYPE_CHECKING:
    from actors.submission import JobServer
    from medcritical_ray.config import Config

SUMMARY = "run another command as a job on a cluster, after checking what can be checked before"
EXAMPLES = (
    "medcritical submit -- self-play --config my.toml",
    "medcritical submit --no-wait -- study --config jobs/configs/study_clinic.toml --seeds 3 --out study",
    "medcritical submit --address http://head:8265 -- self-play --config my.toml --resume",
)

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_WITH_A_RUN_S_CONFIG = ("self-play", "sft", "study", "distill")
_WITH_A_PLAN = ("self-play", "sft", "study")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    address = os.environ.get("RAY_API_SERVER_ADDRESS", DEFAULT_ADDRESS)
    where = "the cluster's dashboard; $RAY_API_SERVER_ADDRESS, else %(default)s, by default"
    parser.add_argument("--address", default=address, metavar="URL", help=where)
    what = (
        "the directory that is sent to the cluster, but for files that .rayignore or .gitignore lists; the command's "
        "paths start from it (default: .)"
    )
    parser.add_argument("--working-dir", type=Path, default=Path(), metavar="DIR", help=what)
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True, help="show the log and end as the job does"
    )
    what = "the command to run there, as it would be typed here after `medcritical`: -- self-play --config my.toml"
    parser.add_argument("job", nargs=argparse.REMAINDER, metavar="-- command ...", help=what)


def run(args: argparse.Namespace) -> int:
    """Checks, submits and, with --wait, follows the job and returns its exit code. Raises UserError before anything is
    sent."""
    words = args.job[1:] if args.job[:1] == ["--"] else args.job
    command, parsed = parse_command(words)
    from actors.submission import JobServer, package_of
    from medcritical_ray import __version__

    config = checked_config(command, parsed, args.working_dir, package_of(args.working_dir))
    server = JobServer(args.address)
    if config and command in _WITH_A_PLAN:
        check_plan(config, server)
    name = config.run.name if config else command
    submission_id = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    metadata = {"run": name, "command": command, "medcritical_ray": __version__}
    entrypoint = ["python", "-m", module_name(command), *words[1:]]
    server.submit(entrypoint, args.working_dir, submission_id, metadata)
    say(f"job {submission_id} is on {args.address}; see `ray job status`, `ray job logs` and `ray job stop`")
    return server.follow(submission_id) if args.wait else 0


def parse_command(words: list[str]) -> tuple[str, argparse.Namespace]:
    """The command and its arguments. Raises UserError if it is none; its own parser exits with 2."""
    from medcritical_ray.errors import UserError

    command = words[0] if words else ""
    if command not in COMMANDS or command == "submit":
        known = ", ".join(name for name in COMMANDS if name != "submit")
        raise UserError(f"{command or 'no command'}: must be one of {known}, as in `submit -- self-play --config FILE`")
    return command, parser_of(importlib.import_module(module_name(command))).parse_args(words[1:])


def checked_config(
    command: str, parsed: argparse.Namespace, working_dir: Path, package: dict[str, int]
) -> "Config | None":
    """The config of a run, if the command takes one; whatever config it takes must be sent with the job.

    Raises UserError if a config is missing or wrong, or if something would be written where it is gone with the job.
    """
    from medcritical_ray.config_files import load_config
    from medcritical_ray.errors import UserError
    from medcritical_ray.store.locations import check_outlives_job

    if getattr(parsed, "out", None):
        check_outlives_job("--out", str(parsed.out))
    file = getattr(parsed, "config", None)
    if file is None:
        return None
    if file.as_posix() not in package:
        raise UserError(
            f"--config {file}: is not among what is sent of --working-dir {working_dir}: must be a file in it, named "
            "from there, that .rayignore and .gitignore leave"
        )
    if command not in _WITH_A_RUN_S_CONFIG:
        return None
    config = load_config(working_dir / file, parsed.set)
    if command in ("self-play", "sft"):
        check_outlives_job("run.directory", config.run.directory)
    return config


def check_plan(config: "Config", server: "JobServer") -> None:
    """Raises UserError if the run does not fit the cluster. Of a student that is only there, the job itself sees to
    that when it starts; of one whose config.json is here, the weights need not be."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.opening import expected_size
    from medcritical_ray.planning.fit import check_fit
    from medcritical_ray.planning.plan import make_plan

    try:
        size, _ = expected_size(config)
    except UserError as error:
        say(f"not checked from here whether the plan fits: {error}", file=sys.stderr)
        return
    check_fit(make_plan(config, size), server.resources(grows=config.cluster.autoscales))


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
