"""Plays a run under random kills, and compares it with the same run undisturbed: `medcritical chaos --config FILE`."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from jobs.cli import run_job
from jobs.parts import options
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.trials.stage import Stage
    from medcritical_ray.chaos.schedule import Target
    from medcritical_ray.config import Config

SUMMARY = "play a run under random kills of its processes and nodes, and compare it with the same run undisturbed"
EXAMPLES = (
    "medcritical chaos --config jobs/configs/chaos_clinic.toml --kills 8 --seed 0",
    "medcritical chaos --config jobs/configs/chaos_clinic.toml --kills 50 --seed 1 --json chaos.json",
)

NUM_NODES = 2
KILLS_PER_RUN = 8
"""A run gets as many as there are kinds: four targets, each to be killed and to be stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config(parser)
    parser.add_argument("--kills", type=int, default=KILLS_PER_RUN, metavar="N", help="to send; default: 8")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the first run's kills; further runs have the next ones"
    )
    options.add_json_file(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a table, and keeps the figures after each run; 1 if anything was lost, or if kills could not be sent.

    Raises UserError, or RunFailed if the run does not even end undisturbed.
    """
    from medcritical_ray.chaos.settings import cluster_settings
    from medcritical_ray.files import check_writable

    if args.kills < 1:
        raise UserError(f"--kills {args.kills}: must be at least 1")
    if args.json:
        check_writable(args.json, "--json")
    config, began = checked_config(args), time.monotonic()
    os.environ |= cluster_settings()
    from actors.cluster import stopped_by_sigterm
    from actors.local_cluster import local_cluster
    from jobs.parts.terminal import wide_console
    from jobs.trials.stage import Stage
    from medcritical_ray.chaos.outcome import nothing_was_lost

    def tell(text: str) -> float:
        seconds = time.monotonic() - began
        print(f"{seconds:7.1f} s  {text}", flush=True)
        return seconds

    with stopped_by_sigterm(), local_cluster(config.cluster, NUM_NODES) as cluster:
        tell(f"a cluster of {NUM_NODES} nodes and a head at {cluster.address}")
        result = disturb(args, Stage(args, config, cluster, tell))
    print_result(wide_console(), result)
    return int(result["kills"] < args.kills or not nothing_was_lost(result))


def checked_config(args: argparse.Namespace) -> "Config":
    """Raises UserError if it is not one for several nodes on this machine."""
    from medcritical_ray.config_files import load_config
    from medcritical_ray.store.locations import is_uri

    config = load_config(args.config, args.set)
    if is_uri(config.run.directory):
        raise UserError(f"run.directory = {config.run.directory!r}: must be a directory: runs are looked at from here")
    if config.cluster.address:
        raise UserError(f"cluster.address = {config.cluster.address!r}: must not be set: nodes are started, and killed")
    for part in ("engines", "trainers"):
        if getattr(config, part).num_gpus:
            raise UserError(f"{part}.num_gpus: must be 0: on a GPU no text comes twice, and nodes here have none")
    return config


def disturb(args: argparse.Namespace, stage: "Stage") -> dict[str, Any]:
    """Plays runs until all kills are sent; returns the figures of all. Ends early if a run cannot be finished."""
    from medcritical_ray.chaos.comparison import Comparison, compare_runs
    from medcritical_ray.chaos.outcome import Outcome, figures
    from medcritical_ray.chaos.schedule import schedule
    from medcritical_ray.chaos.undisturbed import phases_of
    from medcritical_ray.files import write_json

    undisturbed = stage.undisturbed()
    phases, targets = phases_of(undisturbed), targets_of(stage.config)
    outcomes: list[Outcome] = []
    comparisons: list[Comparison] = []
    seed, is_going_on = args.seed, True
    while is_going_on and len(outcomes) < args.kills:
        num_kills = min(KILLS_PER_RUN, args.kills - len(outcomes))
        run, sent = stage.play(f"seed-{seed}", phases, schedule(seed, targets, phases, num_kills))
        outcomes += sent
        comparisons.append(compare_runs(undisturbed, run))
        stage.tell(f"{run.path.name}: {comparisons[-1].text}")
        if args.json:
            write_json(args.json, figures(outcomes, comparisons))
        seed, is_going_on = seed + 1, bool(sent) and run.summary_file.exists()
    return figures(outcomes, comparisons)


def targets_of(config: "Config") -> "list[Target]":
    targets: list[Target] = ["driver", "engine", "node"]
    return [*targets, "train_worker"] if config.trainers.num_workers else targets


def print_result(console: "Console", result: dict[str, Any]) -> None:
    """Kills by target and phase, and what was lost."""
    from rich.table import Table

    table = Table("target", "phase", "kills", "survived", "seconds to recover: median", "longest")
    for target, phases in result["by_target_and_phase"].items():
        for phase, tally in phases.items():
            table.add_row(target, phase, str(tally["kills"]), str(tally["survived"]))
        totals = [str(sum(tally[name] for tally in phases.values())) for name in ("kills", "survived")]
        times = [str(result[name].get(target, "-")) for name in ("recovery_seconds", "longest_recovery_seconds")]
        table.add_row(target, "all", *totals, *times, end_section=True)
    console.print(table)
    rows = ", ".join(f"{result[f'rows_{name}']} {name}" for name in ("lost", "doubled", "changed"))
    kills = f"{result['survived']} of {result['kills']} kills survived"
    console.print(f"{kills}, of {result['rows_expected']} rows {rows}", highlight=False)
    for fault in result["broken"]:
        console.print(fault, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
