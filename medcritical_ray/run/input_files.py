"""The files that a config names: whether they are there, or can be written, and what tells a run's from others."""

import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from medcritical_ray.config import Config, RunConfig
from medcritical_ray.errors import UserError
from medcritical_ray.files import sha256_of, why_unwritable
from medcritical_ray.model_files import hash_of_weights
from medcritical_ray.store.locations import runs_root
from medcritical_ray.teaching.distilled import TEMPLATES

QUESTION_KEYS = {"train": "path", "dev": "dev_path", "test": "test_path"}
"""Split -> the key of `questions` that names a file for it."""


def question_files(config: Config) -> dict[str, Path]:
    """The files that a run's questions come from, by the split that they are for; train is for all without a file."""
    if config.questions.kind == "clinic":
        return {}
    paths = {name: getattr(config.questions, key) for name, key in QUESTION_KEYS.items()}
    return {name: Path(path) for name, path in paths.items() if path}


def check_question_files(config: Config) -> None:
    """Raises UserError, naming keys and paths, if files of questions are not there."""
    _refuse(_missing_question_files(config))


def check_files(config: Config) -> None:
    """As `check_question_files`, of all files and directories that the config names, that of runs among them."""
    problems = [*_unwritable_runs(config.run), *_missing_question_files(config)]
    directories = {
        "student.path": (config.student.path, "that of a downloaded Hugging Face model"),
        "teacher.path": (config.teacher.path, "one that `distill` wrote"),
    }
    for key, (path, wanted) in directories.items():
        if path and not Path(path).is_dir():
            problems.append(f"{key} = {path}: no such directory: must be {wanted}")
    _refuse(problems)


def fingerprints(config: Config) -> dict[str, str]:
    """What tells a run's questions, student and templates from others: hashes of their files, or of the clinic's
    knowledge."""
    prints = {"questions": _hash_of_questions(config)}
    if config.student.path:
        prints["student"] = hash_of_weights(Path(config.student.path))
    if config.teacher.path:
        prints["templates"] = _hash_of_file("teacher.path", Path(config.teacher.path) / TEMPLATES)
    return prints


def _missing_question_files(config: Config) -> Iterator[str]:
    for name, path in question_files(config).items():
        if path.is_dir():
            yield f"questions.{QUESTION_KEYS[name]} = {path}: is a directory: must be a file of questions"
        elif not path.exists():
            yield f"questions.{QUESTION_KEYS[name]} = {path}: no such file"


def _unwritable_runs(run: RunConfig) -> Iterator[str]:
    if refusal := why_unwritable(runs_root(run.directory) / run.name / "run.json"):
        yield f"run.directory = {run.directory}: {refusal}"


def _refuse(problems: Iterable[str]) -> None:
    if told := "; ".join(problems):
        raise UserError(told)


def _hash_of_questions(config: Config) -> str:
    if config.questions.kind == "clinic":
        knowledge = files("medcritical_ray.clinic").joinpath("knowledge.toml").read_bytes()
        return hashlib.sha256(knowledge).hexdigest()
    files_by_split = question_files(config).items()
    return " ".join(_hash_of_file(f"questions.{QUESTION_KEYS[name]}", path) for name, path in files_by_split)


def _hash_of_file(key: str, path: Path) -> str:
    try:
        return sha256_of(path)
    except FileNotFoundError:
        raise UserError(f"{key} = {path}: no such file") from None
    except OSError as error:
        raise UserError(f"{key} = {path}: cannot be read: {error.strerror}") from None
