"""The whole method on the embedded clinic, which needs no file and no GPU: `medcritical demo`."""

import argparse
import shlex
import sys
from pathlib import Path

from jobs.cli import run_job, say
from jobs.parts import options

SUMMARY = "play the whole method on the embedded clinic, in minutes on two cores; started again, it goes on"
EXAMPLES = (
    "medcritical demo",
    "medcritical demo --set run.name=seed-1 --set run.seed=1",
    "medcritical report runs/demo   # also while it goes on",
)

CONFIG = Path(__file__).parent / "configs" / "demo.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_set(parser)


def run(args: argparse.Namespace) -> int:
    """Plays the demo, goes on with it where it stopped, or shows its table again. Raises UserError or RunFailed."""
    from jobs.self_play import play
    from medcritical_ray.config_files import load_config
    from medcritical_ray.opening import run_path
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.run.lock import new_lock

    config = load_config(CONFIG, args.set)
    run = RunDirectory(run_path(config))
    if is_there := run.exists():
        new_lock(run.path).close()
        state = "is finished" if run.summary_file.exists() else "is resumed"
        say(f"{run.path} exists and {state}; remove it to start anew")
    words = [word for override in args.set for word in ("--set", override)]
    return play(config, resume=is_there, command=shlex.join(["medcritical", "demo", *words]))


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
