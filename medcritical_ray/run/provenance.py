"""The run that a policy or a file of questions belongs to, and what it trains on."""

from collections.abc import Iterable
from pathlib import Path

from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import SharedStems, shared_stems
from medcritical_ray.records import Question
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import MANIFEST
from medcritical_ray.run.questions import split_path


def find_run(path: Path) -> RunDirectory | None:
    """The run that a policy or a file of questions belongs to, told from its place: runs/demo/policies/v0003,
    runs/demo/student or runs/demo/data/test.parquet."""
    parents = path.resolve().parents[:2]
    return next((RunDirectory(parent) for parent in parents if (parent / "run.json").exists()), None)


def stems_trained_on(policy: Path, questions: Iterable[Question]) -> SharedStems | None:
    """What the questions share with the training split of the policy's run; None if no run is known.

    Raises UserError if the split cannot be read.
    """
    run = find_run(policy)
    if run is None or not (policy / MANIFEST).exists() or not split_path(run, "train").exists():
        return None
    train = QuestionSet.whole(split_path(run, "train"))
    return shared_stems({"questions": questions, "train": train})["questions and train"]
