"""Writes a policy of a run as a Hugging Face directory: `medcritical export --run DIR --out DIR`."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import run_job
from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_directory, check_writable

if TYPE_CHECKING:
    from medcritical_ray.policies import Policy
    from medcritical_ray.run_directory import RunDirectory

SUMMARY = "write a policy of a run as a Hugging Face directory with a model card"

_VERSION = re.compile(r"v?(\d{1,6})")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run's directory, such as runs/demo")
    parser.add_argument(
        "--policy",
        type=_version,
        metavar="VERSION",
        help="as v0003; default: the one that the last finished iteration adopted",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to write it; must be empty or not exist"
    )
    parser.add_argument(
        "--merge", action="store_true", help="merge an adapter into the model below; full weights stay as they are"
    )
    parser.add_argument(
        "--base",
        type=_hub_name,
        metavar="NAME",
        help="the Hub's name of the model that the exported weights build on, as Qwen/Qwen2.5-7B-Instruct: for the "
        "card, and for an adapter's config instead of a directory of this machine",
    )


def run(args: argparse.Namespace) -> int:
    """Exports, and says what is left to do. Raises UserError, and then leaves nothing behind."""
    run, out = opened_run(args.run), args.out.resolve()
    check_out(args.out, run)
    from medcritical_ray.export.facts import chosen_policy

    policy = chosen_policy(run, args.policy)
    try:
        open_ends = export(run, policy, out, merge=args.merge, base_name=args.base)
    except OSError as error:
        if error.errno is None:  # not of the file system, but a library's
            raise
        raise UserError(f"--out {args.out}: cannot be written: {error.strerror}") from error
    print(f"{args.out}: version {policy.version} of {args.run}")
    print("\n".join(f"before publishing: {point}" for point in open_ends) or "its README.md is the model card: read it")
    return 0


def opened_run(path: Path) -> "RunDirectory":
    """The run in a directory, to read. Raises UserError if there is none."""
    from medcritical_ray.run_directory import RunDirectory

    run = RunDirectory(path)
    if not run.exists():
        raise UserError(f"--run {path}: no run there: must be the directory of a run, such as runs/demo")
    return run


def check_out(out: Path, run: "RunDirectory") -> None:
    """Raises UserError if an export cannot be written to `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is not empty: choose another directory, or move it away")
    if run.path.resolve() in [out.resolve(), *out.resolve().parents]:
        raise UserError(f"--out {out}: lies in the run, which stays as it is: choose another directory")
    check_writable(out, "--out")


def export(run: "RunDirectory", policy: "Policy", out: Path, *, merge: bool, base_name: str | None) -> list[str]:
    """Writes the directory whole or not at all; returns what is left to do before it is published."""
    from medcritical_ray.export.card import model_card, open_points
    from medcritical_ray.export.directory import check_base, write_model
    from medcritical_ray.export.facts import facts_of
    from medcritical_ray.export.origins import base_of

    facts = facts_of(run, policy)
    check_base(policy, facts.record.fingerprints.get("student"))
    with atomic_directory(out) as directory:
        written = write_model(policy, directory, merge=merge, base_name=base_name)
        base = base_of(facts, written.form, base_name)
        card = model_card(facts, written.form, base, has_chat_template=written.has_chat_template)
        (directory / "README.md").write_text(card, encoding="utf-8")
    return open_points(facts, written.form, base)


def _version(text: str) -> int:
    match = _VERSION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: should be a version of the run, as v0003")
    return int(match[1])


def _hub_name(text: str) -> str:
    if not _HUB_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text}: should be a name on the Hub, as Qwen/Qwen2.5-7B-Instruct")
    return text


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
