"""Measures a policy on questions: `medcritical evaluate --policy DIR --questions FILE --out FILE`."""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import note, run_job
from jobs.parts import options
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from medcritical_ray.config import Config
    from medcritical_ray.engines.served import ServedPolicy
    from medcritical_ray.game import Progress
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.questions import Format, Quarantine

SUMMARY = "measure a policy on questions, alone or against another policy"
EXAMPLES = (
    "medcritical evaluate --run runs/demo --questions exam.csv --out result.json",
    "medcritical evaluate --run runs/demo --policy v0001 --questions exam.csv --out result.json --by topic",
    "medcritical evaluate --policy my-model --questions own.jsonl --map key=label --out result.json --against my-base",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_policy(parser, "a model's directory, or that of a published policy, as runs/demo/policies/v0003")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE", help="a .csv, .jsonl, .json or .parquet file"
    )
    options.add_out(parser, "FILE", "where the result goes, as JSON")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another policy, compared on the same questions; repeatable",
    )
    parser.add_argument(
        "--by", action="append", default=[], metavar="LABEL", help="show accuracy by a label's values; repeatable"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: that of the policy's run, else one that suits the model"
    )
    options.add_set(parser)
    options.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints a table and writes the result. Raises UserError before anything starts if an input is wrong."""
    from jobs.parts.summaries import print_evaluation
    from jobs.parts.terminal import wide_console
    from medcritical_ray.files import write_json

    check_out(args.out, args.questions)
    with tempfile.TemporaryDirectory(prefix="medcritical-evaluate-") as scratch:
        console = wide_console()
        result = evaluate(args, Path(scratch), console)
    write_json(args.out, result)
    print_evaluation(console, result, args.by)
    return 0


def check_out(out: Path, questions: Path) -> None:
    """Raises UserError if the result cannot be written to `out`, or would replace the questions."""
    from medcritical_ray.files import check_writable

    if out.is_dir():
        raise UserError(f"--out {out}: is a directory: must be a file")
    if out.resolve() == questions.resolve():
        raise UserError(f"--out {out}: is the file of questions")
    check_writable(out, "--out")


def evaluate(args: argparse.Namespace, scratch: Path, console: "Console") -> dict[str, Any]:
    """The content of the result file: questions, figures of each policy, their comparison, the config."""
    from jobs.parts.connecting import connected
    from jobs.parts.evaluation_config import check_policies_fit, checked_policy, evaluation_config
    from jobs.parts.terminal import EvaluationProgress
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.run.provenance import find_run, stems_trained_on

    directories = {"policy": options.policy_directory(args)}
    directories |= {f"against-{number}": directory for number, directory in enumerate(args.against, 1)}
    policies = {name: checked_policy(directory) for name, directory in directories.items()}
    models = [policy.model_dir for policy in policies.values()]
    quarantine = keep_questions(
        args.questions, args.format, options.mapping_of(args.map), scratch / "questions.parquet"
    )
    check_labels(args.by, QuestionSet.whole(scratch / "questions.parquet"))
    config_where = partial(
        evaluation_config,
        args.config,
        args.set,
        models,
        scratch / "questions.parquet",
        run=find_run(directories["policy"]),
    )
    note("checking questions and models")
    config, _ = config_where(has_gpu=False)  # what is wrong with it is told before anything starts
    questions = QuestionSet.whole(scratch / "questions.parquet", config.questions.block_size)
    trained_on = {name: stems_trained_on(directory, questions) for name, directory in directories.items()}
    with connected(config.cluster, scratch) as resources, EvaluationProgress(console) as progress:
        config, origin = config_where(has_gpu=resources.num_gpus >= 1)
        check_policies_fit(config, list(policies.values()), resources)
        figures = {
            name: {
                "directory": str(directories[name]),
                "trained_on": trained_on[name],
                **measure(config, name, policy, directories[name], questions, scratch, progress),
            }
            for name, policy in policies.items()
        }
    return {
        "questions": {"file": str(args.questions), **quarantine.counts()},
        **compared(figures, questions, scratch),
        **provenance(config, origin, args.questions),
    }


def check_labels(names: list[str], questions: "QuestionSet") -> None:
    """Raises UserError, naming the labels that there are, if one is not among them."""
    known = {label for question in questions for label in question.labels}
    missing = sorted(set(names) - known)
    if missing:
        raise UserError(
            f"--by {missing[0]}: no question has that label; there are: {', '.join(sorted(known)) or 'none'}"
        )


def labelled(questions: "QuestionSet", correct: dict[str, bool]) -> dict[str, Any]:
    """Label -> value -> accuracy, as plain values."""
    from medcritical_ray.evaluation import by_label

    found = by_label({question.id: question.labels for question in questions}, correct)
    return {label: {value: p.to_dict() for value, p in values.items()} for label, values in found.items()}


def keep_questions(file: Path, file_format: "Format", mapping: dict[str, str], kept: Path) -> "Quarantine":
    """Writes the usable questions of a file to `kept`. Raises UserError if there are none."""
    from medcritical_ray.questions import Quarantine, read_questions, write_questions

    quarantine = Quarantine()
    write_questions(kept, quarantine.admit(file, read_questions(file, file_format, mapping)))
    return quarantine


def measure(
    config: "Config",
    name: str,
    policy: "ServedPolicy",
    directory: Path,
    questions: "QuestionSet",
    scratch: Path,
    progress: "Progress",
) -> dict[str, Any]:
    """The figures of one policy, with engines of its own: two policies need not have the same architecture."""
    from actors.team import RayTeam
    from jobs.parts.evaluation_config import config_of_policy
    from medcritical_ray.assessment import assess_on, correct_by_question
    from medcritical_ray.game import Session
    from medcritical_ray.play import Player

    progress.start_phase(0, f"starting engines for {directory}")
    started = time.monotonic()
    served = config_of_policy(config, policy, name)
    with RayTeam(served) as team:
        session = Session(config=served, team=team, progress=progress)
        player = Player("generator", policy.version, directory)
        figures = assess_on(session, 0, player, player, questions, scratch / name).to_dict()
    progress.finish_phase(0, str(directory), time.monotonic() - started, {"num_questions": questions.num_questions})
    return {**figures, "exact_set": exact_set(questions, correct_by_question(questions, scratch / name))}


def compared(figures: dict[str, dict[str, Any]], questions: "QuestionSet", scratch: Path) -> dict[str, Any]:
    """The figures of the policy, and of those that it is compared with: by label, too, and how they compare."""
    from medcritical_ray.assessment import correct_by_question

    correct = {name: correct_by_question(questions, scratch / name) for name in figures}
    told = {name: {**each, "by_label": labelled(questions, correct[name])} for name, each in figures.items()}
    return {
        "policy": told.pop("policy"),
        "against": [
            {**each, "comparison": comparison(correct["policy"], correct[name])} for name, each in told.items()
        ],
    }


def exact_set(questions: "QuestionSet", correct: dict[str, bool]) -> dict[str, Any] | None:
    """The accuracy on questions with several right letters, all of which must be named; None if there are none."""
    from medcritical_ray.statistics import Proportion

    several = [correct[question.id] for question in questions if len(question.key) > 1]
    return Proportion(sum(several), len(several)).to_dict() if several else None


def comparison(policy: dict[str, bool], against: dict[str, bool]) -> dict[str, Any]:
    """The paired test by question; the gain is the accuracy of the policy minus that of the other."""
    from medcritical_ray.statistics import compare

    paired = compare(against, policy).to_dict()
    return {{"only_a": "only_against", "only_b": "only_policy"}.get(name, name): paired[name] for name in paired}


def provenance(config: "Config", origin: str, questions: Path) -> dict[str, Any]:
    """What the figures depend on beside the policies: config and where it comes from, versions, the questions' hash."""
    from medcritical_ray.files import sha256_of
    from medcritical_ray.run.record import new_record

    prints = {"questions": sha256_of(questions)}
    record = new_record(config.model_dump(mode="json"), {"run": config.run.seed}, prints)
    return {"config_from": origin, **record.model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
