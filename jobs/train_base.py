"""Trains the clinic's base student, whose weights come with the package: `medcritical train-base --out DIR`."""

import argparse
import sys

from jobs.cli import run_job, say
from jobs.parts import options

SUMMARY = "train the clinic's base student from nothing"
EXAMPLES = ("medcritical train-base --out base-student",)

NUM_STEPS = 2500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_out(parser, "DIR", "where to save the student; must not exist")
    parser.add_argument(
        "--steps", type=int, default=NUM_STEPS, metavar="N", help="steps of 32 documents; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of documents and first weights; default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Trains and saves a student. Raises UserError for arguments that cannot be."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import check_writable

    if args.out.exists():
        raise UserError(f"--out {args.out} exists: choose another directory, or move it away")
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: must be at least 1")
    check_writable(args.out, "--out")
    from medcritical_ray.clinic.train_base import train_base
    from medcritical_ray.clinic.world import load_world

    accuracy = train_base(load_world(), args.out, num_steps=args.steps, seed=args.seed, on_step=_show)
    say(f"{args.out}: looks up {100 * accuracy:.1f} % of options rightly (chance is 20 %)")
    return 0


def _show(metrics: dict[str, float]) -> None:
    """A line for every step that was tested."""
    if "look_up_accuracy" in metrics:
        done, loss, accuracy = metrics["step"], metrics["loss"], 100 * metrics["look_up_accuracy"]
        print(f"step {done:.0f} of {metrics['num_steps']:.0f}: loss {loss:.3f}, looks up {accuracy:.1f} %", flush=True)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
