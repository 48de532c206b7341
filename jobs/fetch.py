"""Copies a run, or a policy of one, from an object store: `medcritical fetch s3://bucket/runs/demo runs/demo`."""

import argparse
import sys
from pathlib import Path

from jobs.cli import run_job, say

SUMMARY = "copy a run, or a policy of one, from an object store to a directory"

EXAMPLES = (
    "medcritical fetch s3://bucket/runs/demo runs/demo",
    "medcritical fetch s3://bucket/runs/demo/policies/v0003 my-policy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="as s3://bucket/runs/demo, or s3://bucket/runs/demo/policies/v0003")
    parser.add_argument("out", type=Path, metavar="DIR", help="where to; what is there already is replaced by name")


def run(args: argparse.Namespace) -> int:
    """Raises UserError if the store cannot be used, or has nothing there."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.store.locations import is_uri, uri_problems
    from medcritical_ray.store.mirror import fetch

    for problem in uri_problems(args.uri) if is_uri(args.uri) else ["must be a URI such as s3://bucket/runs/demo"]:
        raise UserError(f"URI: {problem}")
    num_files = fetch(args.uri, args.out)
    if not num_files:
        raise UserError(f"there is nothing at {args.uri}")
    say(f"{num_files:,} files in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
