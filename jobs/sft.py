"""Stage 1 alone, up to version 0 and its evaluation: `medcritical sft --config FILE`."""

import argparse
import sys

from jobs.cli import run_job
from jobs.parts import options

SUMMARY = "run stage 1 alone; self-play goes on from there"
EXAMPLES = (
    "medcritical sft --config my.toml",
    "medcritical sft --config my.toml --resume",
    "medcritical self-play --config my.toml --resume   # afterwards: stage 2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config(parser)
    options.add_resume(parser)


def run(args: argparse.Namespace) -> int:
    """Plays stage 1 of the run that the config describes, and says what plays on. Raises UserError or RunFailed."""
    from jobs.parts.summaries import print_stage_one
    from jobs.parts.terminal import wide_console
    from jobs.self_play import accounted_for, opened_to_play, seated
    from medcritical_ray.config_files import load_config
    from medcritical_ray.run.directory import STAGE_ONE
    from medcritical_ray.run.state import note_stage_one_alone
    from medcritical_ray.stage_one import stage_one

    config, console = load_config(args.config, args.set), wide_console()
    again, plays_on = (options.command_line(command, args, "--resume") for command in ("sft", "self-play"))
    with opened_to_play(config, resume=args.resume, command=again) as directory:
        with seated(config, directory, console, again) as game, accounted_for(directory, again):
            stage_one(game)
            note_stage_one_alone(directory, plays_on)
        print_stage_one(console, directory.metrics(STAGE_ONE), plays_on)
    return 0


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
