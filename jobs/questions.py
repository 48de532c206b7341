"""Reads a question file, says what became of its rows and which stems other files have, too, and makes a task of them:
`medcritical questions FILE`."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from jobs.cli import run_job, say
from jobs.parts import options

if TYPE_CHECKING:
    from medcritical_ray.questions import BadRow, Quarantine, Reading, SharedStems
    from medcritical_ray.records import Question

SUMMARY = "read a question file, count what was loaded and quarantined, and, --against others, stems they share"
EXAMPLES = (
    "medcritical questions exam.csv",
    "medcritical questions own.jsonl --map key=label --map options=A,B,C,D --json",
    "medcritical questions train.csv --against test.csv   # stems that both have",
    "medcritical questions runs/demo/data/test.parquet --lm-eval tasks/demo",
)

NUM_SHOWN = 10
NUM_STEM_CHARS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a .csv, .jsonl, .json or .parquet file of questions")
    options.add_format(parser)
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another file, of the same format and mapping: count the stems that two of the files share; repeatable",
    )
    options.add_json(parser)
    parser.add_argument(
        "--lm-eval",
        type=Path,
        metavar="DIR",
        help="write them as tasks for lm-evaluation-harness, too; must not exist",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the counts. Raises UserError if a file cannot be read or holds no usable question, and then has written
    nothing."""
    from medcritical_ray.questions import Quarantine, how_read, read_questions, shared_stems

    quarantines = {file: Quarantine() for file in _different([args.file, *args.against])}
    contents = {file: Content() for file in quarantines}
    mapping = options.mapping_of(args.map)

    def admitted(file: Path) -> "Iterator[Question]":
        return contents[file].of(quarantines[file].admit(file, read_questions(file, args.format, mapping)))

    questions = list(admitted(args.file))
    others = {str(file): admitted(file) for file in args.against}
    shared = shared_stems({str(args.file): questions, **others}) if others else {}
    tasks = _write_tasks(args.lm_eval, args.file, questions) if args.lm_eval else []
    if args.json:
        say(json.dumps(_counts(args, quarantines, shared), ensure_ascii=False))
        return 0
    for file, quarantine in quarantines.items():
        taken_for = reading_line(how_read(file, args.format, mapping), contents[file])
        _print_tables(file, taken_for, quarantine.counts(), quarantine.bad_rows)
    for pair, stems in shared.items():
        _print_shared(pair, stems)
    for task in tasks:
        say(f"{args.lm_eval}: task {task}")
    return 0


class Content:
    """The languages and labels of questions that pass through."""

    def __init__(self) -> None:
        self.languages: Counter[str] = Counter()
        self.labels: dict[str, None] = {}

    def of(self, questions: "Iterable[Question]") -> "Iterator[Question]":
        from medcritical_ray.language import CHINESE, language_of

        for question in questions:
            self.languages["Chinese" if language_of(question.unkeyed()) is CHINESE else "English"] += 1
            self.labels |= dict.fromkeys(question.labels)
            yield question


def reading_line(reading: "Reading", content: Content) -> str:
    """What a file was taken for, in a line."""
    encoding = f" in {reading.encoding}" if reading.encoding else ""
    languages = ", ".join(f"{language} ({num:,})" for language, num in content.languages.most_common())
    parts = [f"read as {reading.format}{encoding}", languages, f"labels: {', '.join(content.labels) or 'none'}"]
    if reading.first_number is not None:
        parts.append(f"keys that are numbers count from {reading.first_number}")
    return "; ".join(parts)


def _different(files: list[Path]) -> list[Path]:
    """The files. Raises UserError if two of them are the same."""
    from medcritical_ray.errors import UserError

    for number, file in enumerate(files):
        if file.resolve() in [other.resolve() for other in files[:number]]:
            raise UserError(f"--against {file}: is compared already: name each file once")
    return files


def _counts(
    args: argparse.Namespace, quarantines: "dict[Path, Quarantine]", shared: "dict[str, SharedStems]"
) -> dict[str, Any]:
    counts = quarantines[args.file].counts()
    if args.against:
        counts["against"] = {str(file): quarantines[file].counts() for file in args.against}
        counts["shared_stems"] = {pair: asdict(stems) for pair, stems in shared.items()}
    return counts


def _write_tasks(directory: Path, file: Path, questions: "list[Question]") -> list[str]:
    """The names of the tasks."""
    from medcritical_ray.errors import UserError
    from medcritical_ray.files import check_writable
    from medcritical_ray.harness.tasks import write_tasks

    if directory.exists():
        raise UserError(f"--lm-eval {directory} exists: choose another directory, or move it away")
    check_writable(directory, "--lm-eval")
    return write_tasks(directory, questions, _max_tokens(file))


def _max_tokens(file: Path) -> int:
    """What an attempt may have: in the run that the questions belong to, or by default."""
    from medcritical_ray.config import Config
    from medcritical_ray.run.provenance import find_run
    from medcritical_ray.run.state import run_config

    run = find_run(file)
    config = run_config(run, "copy the questions to another place") if run else Config()
    return config.generate.sampling.max_tokens


def _print_tables(path: Path, taken_for: str, counts: dict[str, Any], bad_rows: "list[BadRow]") -> None:
    from rich.table import Table

    from jobs.parts.terminal import PlainConsole

    table = Table("", "rows")
    table.columns[1].justify = "right"
    for name in ("rows", "loaded", "quarantined"):
        table.add_row({"rows": "read"}.get(name, name), f"{counts[name]:,}")
    for reason, count in counts["reasons"].items():
        table.add_row(f"  {reason}", f"{count:,}")
    console = PlainConsole()
    console.print(f"{path}\n{taken_for}", soft_wrap=True)
    console.print(table)
    for bad in bad_rows[:NUM_SHOWN]:
        console.print(f"{bad.file}, row {bad.row}: {bad.reason}", soft_wrap=True)
    if len(bad_rows) > NUM_SHOWN:
        console.print(f"and {len(bad_rows) - NUM_SHOWN:,} more")


def _print_shared(pair: str, stems: "SharedStems") -> None:
    say(f"different stems in both {pair}: {stems.num_stems:,} (a stem of several questions of a file counts once)")
    for first_id, second_id, stem in stems.examples:
        say(f"  {first_id} = {second_id}: {shorten(stem, NUM_STEM_CHARS, placeholder='…')}")


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
