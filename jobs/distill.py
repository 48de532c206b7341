"""Has a large model write the templates of stage 1: `medcritical distill --config FILE --out DIR`."""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import run_job
from jobs.parts import options

if TYPE_CHECKING:
    from rich.console import Console

    from medcritical_ray.config import EndpointConfig
    from medcritical_ray.records import Question
    from medcritical_ray.teaching.distilled import Distilled
    from medcritical_ray.teaching.endpoint.responses import ResponseStore

SUMMARY = "have a large model write the templates of stage 1, within a budget"
EXAMPLES = (
    "medcritical distill --config my.toml --out templates",
    "medcritical distill --config my.toml --set teacher.endpoint.max_cost=5 --out templates",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config(parser, "a config with [teacher.endpoint]")
    options.add_out(parser, "DIR", "for templates, rejects, ledger and responses; resumed")


def run(args: argparse.Namespace) -> int:
    """Distills, and prints what came of it. Raises UserError before anything is asked if the endpoint cannot be used.

    Started again with the same directory, it asks for nothing that was answered before.
    """
    from jobs.parts.terminal import wide_console
    from medcritical_ray.config_files import load_config
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import check_writable, write_json
    from medcritical_ray.run.lock import RunLock
    from medcritical_ray.run.questions import prepare_questions
    from medcritical_ray.teaching.distilled import LEDGER, RESPONSES, write_distilled
    from medcritical_ray.teaching.endpoint.access import check_endpoint
    from medcritical_ray.teaching.endpoint.budget import ledger
    from medcritical_ray.teaching.endpoint.responses import ResponseStore

    config = load_config(args.config, args.set)
    if config.teacher.endpoint is None:
        raise UserError(f"{args.config} has no [teacher.endpoint]: name base_url and model there")
    if args.out.is_file():
        raise UserError(f"--out {args.out}: is a file: must be a directory")
    check_writable(args.out / RESPONSES, "--out")
    prepared = prepare_questions(config)
    questions = prepared.splits.train[: config.teacher.num_questions]
    check_endpoint(config.teacher.endpoint)
    console = wide_console()
    console.print(*prepared.contamination.lines(), sep="\n", soft_wrap=True)
    with closing(ResponseStore(args.out / RESPONSES)) as store, closing(RunLock(args.out / ".lock")):
        try:
            results = asyncio.run(_distill_all(questions, config.teacher.endpoint, store, console))
        finally:  # what was answered is paid for, whatever came after
            costs = ledger(store.usage(), config.teacher.endpoint.prices)
            write_json(args.out / LEDGER, costs)
        write_distilled(args.out, results)
    _print_outcome(console, args.out, results, costs)
    return 0


async def _distill_all(
    questions: Sequence["Question"], config: "EndpointConfig", store: "ResponseStore", console: "Console"
) -> list["Distilled"]:
    """One result for each question, in their order."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from medcritical_ray.teaching.endpoint.client import EndpointClient, in_bulk
    from medcritical_ray.teaching.endpoint.templates import distilled

    columns = (TextColumn("templates"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with EndpointClient(config, store, "templates") as client:
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=len(questions))
            return await in_bulk(
                questions,
                lambda question: distilled(client, question, config),
                num_workers=config.max_in_flight,
                advance=lambda: progress.advance(bar),
            )


def _print_outcome(console: "Console", out: Path, results: list["Distilled"], costs: dict[str, Any]) -> None:
    from rich.table import Table

    from jobs.parts.summaries import charges_line

    table = Table("", "questions")
    table.columns[1].justify = "right"
    table.add_row("asked for", f"{len(results):,}")
    table.add_row("template", f"{sum(each.template is not None for each in results):,}")
    for reason, count in Counter(each.reason for each in results if each.reason).most_common():
        table.add_row(f"  {reason}", f"{count:,}")
    console.print(table)
    console.print(f"{charges_line(costs)}; all in {out}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
