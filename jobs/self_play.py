"""The main job: stage 1, then the self-iterations: `medcritical self-play --config FILE`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from jobs.cli import note, run_job, say
from jobs.parts import options
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from medcritical_ray.config import Config
    from medcritical_ray.game import Game, Progress, Team
    from medcritical_ray.planning.fit import ClusterResources
    from medcritical_ray.planning.plan import Plan
    from medcritical_ray.run.directory import RunDirectory

SUMMARY = "run the whole method: stage 1, then the self-iterations"
EXAMPLES = (
    "medcritical self-play --config my.toml --dry-run   # what it needs, and whether it fits",
    "medcritical self-play --config my.toml --set dpo.beta=0.2 --set run.name=sharper",
    "medcritical self-play --config my.toml --resume",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config(parser)
    options.add_resume(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print config, plan, stems in two splits and, last, all that is wrong or that the cluster lacks; stop",
    )


def run(args: argparse.Namespace) -> int:
    """Plays the run that the config describes. Raises UserError or RunFailed."""
    from medcritical_ray.config_files import load_config

    config = load_config(args.config, args.set)
    if args.dry_run:
        return dry_run(config)
    return play(config, resume=args.resume, command=options.command_line("self-play", args, "--resume"))


def dry_run(config: "Config") -> int:
    """Prints the resolved config, the plan, what the splits share, and last all that a run would lack here, which the
    exit code says, too.

    A student's config.json is enough for that, without its weights. Raises UserError, and has printed nothing, if a
    file that the config names is not there.
    """
    from medcritical_ray.config_files import dump_config
    from medcritical_ray.errors import MedCriticalError
    from medcritical_ray.run.input_files import check_files

    check_files(config)
    say("# The config, in full.", dump_config(config))
    shortfalls: list[str] = []
    try:
        for shortfall in shortfalls_here(config):
            shortfalls.append(shortfall)  # noqa: PERF402 (those before an error are kept)
    except MedCriticalError:  # the cluster's: what was found before is told all the same
        say(*shortfalls)
        raise
    say(*shortfalls or ["the plan fits the cluster"])
    return 2 if shortfalls else 0


def shortfalls_here(config: "Config") -> Iterator[str]:
    """What is wrong with student, questions and endpoint, and what the cluster lacks, each found whatever the others
    are; prints what there is to say of the plan and the questions."""
    from jobs.parts.connecting import connected
    from medcritical_ray.errors import Problems
    from medcritical_ray.opening import check_reviewer, checked_questions, expected_size, run_path
    from medcritical_ray.planning.fit import compare
    from medcritical_ray.planning.plan import make_plan
    from medcritical_ray.planning.plan_text import describe, describe_cache

    problems, plan = Problems(), None
    with problems:
        size, lacking = expected_size(config)
        yield from (f"missing: {what}" for what in lacking)
        plan = make_plan(config, size)
        say(describe(plan))
    with problems:
        prepared = checked_questions(config)
        say(*prepared.quarantine.lines(), *prepared.contamination.lines())
    with problems:
        check_reviewer(config)
    yield from (f"wrong: {problem}" for problem in problems.told)
    if plan is None:
        return
    try:
        with connected(config.cluster, run_path(config)) as resources:
            for line in describe_cache(plan.engine, resources.gpu_memory_gib):
                say(line)
            yield from (f"does not fit: {shortfall}" for shortfall in compare(plan, resources))
    except UserError as error:
        yield f"wrong: {error}"


def play(config: "Config", *, resume: bool, command: str) -> int:
    """Opens the run, plays it to its end and prints the table; a run that is finished already is only printed."""
    from jobs.parts.summaries import print_next, print_summary
    from jobs.parts.terminal import wide_console
    from medcritical_ray.files import read_json

    console = wide_console()
    with opened_to_play(config, resume=resume, command=command) as run:
        if not run.summary_file.exists():
            with seated(config, run, console, command) as game:
                play_to_the_end(game)
        print_summary(console, read_json(run.summary_file))
        print_next(console, run)
    return 0


@contextmanager
def opened_to_play(config: "Config", *, resume: bool, command: str) -> "Iterator[RunDirectory]":
    """The run, locked, and connected to a cluster that has room for it unless it is finished."""
    from jobs.parts.connecting import connected
    from medcritical_ray.opening import open_run, run_path
    from medcritical_ray.run.input_files import check_files
    from medcritical_ray.telling.trackers import check_tracker

    check_files(config)
    check_tracker(config.run)
    plan = plan_of(config)
    with ExitStack() as stack:

        def enter() -> None:
            check_outlives("run.directory", config.run.directory)
            admit(config, plan, stack.enter_context(connected(config.cluster, run_path(config))))

        yield stack.enter_context(open_run(config, resume=resume, resume_command=command, admit=enter, tell=note))


@contextmanager
def seated(config: "Config", run: "RunDirectory", console: "Console", command: str) -> "Iterator[Game]":
    """The game of an opened run, with its team; a person sees how it goes."""
    from actors.team import RayTeam
    from jobs.parts.following import followed
    from jobs.parts.summaries import print_contamination
    from jobs.parts.terminal import TerminalProgress

    print_contamination(console, run)
    with (
        TerminalProgress(console) as terminal,
        followed(config, run, terminal) as progress,
        RayTeam(config, terminal.noted(run.append_event)) as team,
    ):
        yield make_game(config, run, team, progress, command)


def make_game(config: "Config", run: "RunDirectory", team: "Team", progress: "Progress", command: str) -> "Game":
    """The run with all that its phases work with."""
    from medcritical_ray.game import Game
    from medcritical_ray.opening import make_reviewer, student_path
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.run.questions import split_path
    from medcritical_ray.teaching.configured import make_teacher, make_truth

    train, dev, test = (
        QuestionSet.whole(split_path(run, split), config.questions.block_size) for split in ("train", "dev", "test")
    )
    in_stage_two = config.correct.policy == "teacher"
    teacher = make_teacher(config, train if in_stage_two else train.window(0, config.teacher.num_questions_seen))
    return Game(
        config=config,
        run=run,
        team=team,
        teacher=teacher,
        reviewer=make_reviewer(config, run, teacher, progress),
        progress=progress,
        student=student_path(config, run),
        train=train,
        dev=dev,
        test=test,
        resume_command=command,
        right_line_by_line=make_truth(config, train),
    )


def play_to_the_end(game: "Game") -> None:
    """Stage 1, stage 2, and summary.json; the report is written after stage 1 and every iteration, and at the end."""
    from medcritical_ray.self_play import self_play
    from medcritical_ray.stage_one import stage_one
    from medcritical_ray.summary import summarise

    with accounted_for(game.run, game.resume_command):
        policy = stage_one(game)
        keep_report(game.run)
        policy = self_play(game, policy, after_each=lambda: keep_report(game.run))
        game.run.finish(summarise(game, policy.version))


@contextmanager
def accounted_for(run: "RunDirectory", command: str) -> Iterator[None]:
    """However the block ends, the run's events say so if it was early, and its report is written, but not where the
    process was told to end: that leaves no time for it. Who ended it is told the command that goes on."""
    from medcritical_ray.errors import Stopped
    from medcritical_ray.run.state import note_end

    try:
        yield
    except BaseException as error:
        from actors.cluster import stopped_or

        end = stopped_or(error)
        note_end(run, end)
        if isinstance(end, KeyboardInterrupt):
            end.add_note(f"resume with: {command}")
        if end is not error:
            raise end from error
        raise
    finally:
        if not isinstance(sys.exception(), Stopped):
            keep_report(run)


def keep_report(run: "RunDirectory") -> None:
    """Writes the run's report. A run goes on without one, and says so in its events."""
    from medcritical_ray.report import write_report

    try:
        write_report(run, run.report_file)
    except Exception as error:  # noqa: BLE001 (days of work are not to end in a page)
        with suppress(OSError):  # the disk may be what failed
            run.append_event("report not written", cause=repr(error))


def plan_of(config: "Config") -> "Plan":
    from medcritical_ray.opening import student_size
    from medcritical_ray.planning.plan import make_plan

    return make_plan(config, student_size(config))


def check_outlives(what: str, directory: str) -> None:
    """Raises UserError if this process is a submitted job, and the directory is gone with it."""
    from actors.job_page import submission_id
    from medcritical_ray.store.locations import check_outlives_job

    if submission_id():
        check_outlives_job(what, directory)


def admit(config: "Config", plan: "Plan", resources: "ClusterResources") -> None:
    """Raises UserError if the plan does not fit the cluster, or if a machine of it does not see where the run lies."""
    from actors.storage import check_storage
    from medcritical_ray.planning.fit import check_fit

    check_fit(plan, resources)
    check_storage(config)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
