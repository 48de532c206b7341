"""The controlled study of the method: `medcritical study --config FILE --seeds N --out DIR`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import run_job
from jobs.parts import options

if TYPE_CHECKING:
    from rich.console import Console

    from actors.team import RayTeam
    from medcritical_ray.config import Config
    from medcritical_ray.run.directory import RunDirectory

SUMMARY = "compare self-correction with its controls, over seeds, each from the same student of stage 1"
EXAMPLES = (
    "medcritical study --config jobs/configs/study_clinic.toml --seeds 3 --out study",
    "medcritical study --config jobs/configs/study_clinic.toml --arms jobs/configs/arms/ablations.toml --out ablations",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config(parser, "what all arms have in common, a TOML file")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds, from run.seed on (default: 3)")
    parser.add_argument("--arms", type=Path, metavar="FILE", help="other arms than the method and its controls: TOML")
    options.add_out(parser, "DIR", "for runs, table and figure; resumed")


def run(args: argparse.Namespace) -> int:
    """Plays every arm with every seed, and writes study.json, study.md and study.png. Raises UserError or RunFailed.

    Started again with the same directory, it goes on where it stopped.
    """
    from jobs.parts.study_figure import draw_study
    from jobs.parts.terminal import wide_console
    from jobs.self_play import check_outlives
    from medcritical_ray.config_files import load_config
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import atomic_path, check_writable, write_json
    from medcritical_ray.study.arms import ARMS, arm_configs, read_arms
    from medcritical_ray.study.figures import study_figures
    from medcritical_ray.study.table import study_table

    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: must be at least 1")
    config, out = load_config(args.config, args.set), args.out.absolute()
    check_outlives("--out", str(args.out))
    check_writable(out / "study.json", "--out")
    seeds = range(config.run.seed, config.run.seed + args.seeds)
    arms = read_arms(args.arms) if args.arms else ARMS
    console = wide_console()
    play_all(arm_configs(config, arms, seeds, out), out, console, _command(args))
    figures = study_figures(out, arms, seeds)
    write_json(out / "study.json", figures)
    with atomic_path(out / "study.md") as table:
        table.write_text(study_table(figures), encoding="utf-8")
    draw_study(figures, out / "study.png")
    print_study(console, figures, out)
    return 0


def play_all(configs: "dict[tuple[int, str], Config]", out: Path, console: "Console", command: str) -> None:
    """Plays the runs that are not finished, one after the other, those of a seed with the same engines."""
    from jobs.parts.connecting import connected
    from jobs.self_play import admit, plan_of
    from medcritical_ray.opening import check_reviewers
    from medcritical_ray.study.arms import TRUNK, arm_run, is_finished
    from medcritical_ray.telling.trackers import check_tracker

    waiting = [key for key, config in configs.items() if not is_finished(arm_run(out, *key), config)]
    if not waiting:
        return
    plans = [plan_of(configs[key]) for key in waiting]
    check_reviewers((configs[seed, arm], arm_run(out, seed, TRUNK)) for seed, arm in waiting)
    check_tracker(configs[waiting[0]].run)
    num_played = 0
    with connected(configs[waiting[0]].cluster, out) as resources:
        from actors.team import RayTeam

        for key, plan in zip(waiting, plans, strict=True):
            admit(configs[key], plan, resources)
        for seed in dict.fromkeys(seed for seed, _ in waiting):
            # A fresh student's tokenizer is its seed's own, and engines load theirs once.
            with RayTeam(configs[seed, TRUNK]) as team:
                for arm in (arm for of_seed, arm in waiting if of_seed == seed):
                    num_played += 1
                    console.rule(f"run {num_played} of {len(waiting)}: {arm}, seed {seed}")
                    trunk = None if arm == TRUNK else arm_run(out, seed, TRUNK)
                    play_arm(configs[seed, arm], trunk, team, console, command)


def play_arm(config: "Config", trunk: "RunDirectory | None", team: "RayTeam", console: "Console", command: str) -> None:
    """Plays one arm to its end: stage 1, or what follows that of `trunk`."""
    from jobs.parts.following import followed
    from jobs.parts.summaries import print_contamination
    from jobs.parts.terminal import TerminalProgress
    from jobs.self_play import make_game, play_to_the_end
    from medcritical_ray.opening import open_run, run_path
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.study.branching import open_branch

    if trunk:
        opened = open_branch(config, run_path(config), trunk, resume_command=command)
    else:
        is_there = RunDirectory(run_path(config)).exists()
        opened = open_run(config, resume=is_there, resume_command=command, admit=lambda: None)
    with opened as run, TerminalProgress(console) as terminal, followed(config, run, terminal) as progress:
        if not trunk:
            print_contamination(console, run)
        team = team.for_run(config, terminal.noted(run.append_event))
        play_to_the_end(make_game(config, run, team, progress, command))


def print_study(console: "Console", figures: dict[str, Any], out: Path) -> None:
    """Accuracies, and where the whole lies."""
    from rich.table import Table

    from medcritical_ray.study.table import accuracy_text

    table = Table("arm", "accuracy", "each seed", "over stage 1", "p")
    for arm, row in figures["arms"].items():
        over = figures["comparisons"].get(arm, {}).get("sft")
        gain = [f"{100 * over['gain']:+.1f}", f"{over['p_value']:.1g}"] if over else []
        table.add_row(arm, accuracy_text(row), ", ".join(f"{100 * value:.1f}" for value in row["accuracy"]), *gain)
    console.print(table)
    console.print(f"{out / 'study.json'}, study.md and study.png", soft_wrap=True)


def _command(args: argparse.Namespace) -> str:
    arms = ["--arms", args.arms] if args.arms else []
    return options.command_line("study", args, "--seeds", args.seeds, *arms, "--out", args.out)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
