"""Writes a policy of a run as a Hugging Face directory: `medcritical export --run DIR --out DIR`."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import run_job, say
from jobs.parts import options
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.run.policies import Policy

SUMMARY = "write a policy of a run as a Hugging Face directory with a model card"
EXAMPLES = (
    "medcritical export --run runs/demo --out demo-model",
    "medcritical export --run runs/my --policy v0001 --out my-model --merge --base Qwen/Qwen2.5-7B-Instruct",
)

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_policy(parser, "the directory of a run's policy, as runs/demo/policies/v0003")
    options.add_out(parser, "DIR", "where to write it; must be empty or not exist")
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
    from medcritical_ray.export.facts import chosen_policy

    (run, version), out = options.run_and_version(args), args.out.resolve()
    check_out(args.out, run)
    policy = chosen_policy(run, version)
    try:
        open_ends = export(run, policy, out, merge=args.merge, base_name=args.base)
    except OSError as error:
        if error.errno is None:  # not of the file system, but a library's
            raise
        raise UserError(f"--out {args.out}: cannot be written: {error.strerror}") from error
    say(f"{args.out}: version {policy.version} of {run.path}")
    say(*[f"before publishing: {point}" for point in open_ends] or ["its README.md is the model card: read it"])
    return 0


def check_out(out: Path, run: "RunDirectory") -> None:
    """Raises UserError if an export cannot be written to `out`."""
    from medcritical_ray.files import check_writable

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
    from medcritical_ray.files import atomic_directory

    facts = facts_of(run, policy)
    check_base(policy, facts.record.fingerprints.get("student"))
    with atomic_directory(out) as directory:
        written = write_model(policy, directory, merge=merge, base_name=base_name)
        base = base_of(facts, written.form, base_name)
        card = model_card(facts, written.form, base, has_chat_template=written.has_chat_template)
        (directory / "README.md").write_text(card, encoding="utf-8")
    return open_points(facts, written.form, base)


def _hub_name(text: str) -> str:
    if not _HUB_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text}: should be a name on the Hub, as Qwen/Qwen2.5-7B-Instruct")
    return text


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
