"""What a run needs before its first phase: its questions, split and on disk, and its teacher."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medcritical_ray.clinic.exam import Split, make_questions
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError, told_by_key
from medcritical_ray.files import read_json, sha256_of, write_json
from medcritical_ray.model_files import hash_of_weights
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import (
    Contamination,
    Quarantine,
    Splits,
    draw,
    read_questions,
    shared_stems,
    split_questions,
    without_stems_of,
    write_questions,
)
from medcritical_ray.records import Question
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.teaching.distilled import TEMPLATES, templates_of
from medcritical_ray.teaching.teachers import Teacher, TemplateTeacher, explained_template
from medcritical_ray.trace import steps_of

QUESTIONS_PHASE = "questions"

_QUESTION_KEYS = {"train": "path", "dev": "dev_path", "test": "test_path"}
"""Split -> the key of `questions` that names a file for it."""

EXAM_SEED = 0
"""The clinic's dev and test questions are those of this seed in every run, so that runs can be compared."""


@dataclass(frozen=True, slots=True)
class PreparedQuestions:
    """The questions of a run by split, the rows that were set aside, and what splits and files have in common."""

    splits: Splits
    quarantine: Quarantine
    contamination: Contamination


def fingerprints(config: Config) -> dict[str, str]:
    """What tells a run's questions, student and templates from others: hashes of their files, or of the clinic's
    knowledge."""
    prints = {"questions": _hash_of_questions(config)}
    if config.student.path:
        prints["student"] = hash_of_weights(Path(config.student.path))
    if config.teacher.path:
        prints["templates"] = _hash_of_file("teacher.path", Path(config.teacher.path) / TEMPLATES)
    return prints


def question_files(config: Config) -> dict[str, Path]:
    """The files that a run's questions come from, by the split that they are for; train is for all without a file."""
    if config.questions.kind == "clinic":
        return {}
    paths = {name: getattr(config.questions, key) for name, key in _QUESTION_KEYS.items()}
    return {name: Path(path) for name, path in paths.items() if path}


def check_question_files(config: Config) -> None:
    """Raises UserError, naming keys and paths, if files of questions are not there."""
    _refuse(_missing_question_files(config))


def check_files(config: Config) -> None:
    """As `check_question_files`, of all files and directories that the config names."""
    problems = [*_missing_question_files(config)]
    directories = {
        "student.path": (config.student.path, "that of a downloaded Hugging Face model"),
        "teacher.path": (config.teacher.path, "one that `distill` wrote"),
    }
    for key, (path, wanted) in directories.items():
        if path and not Path(path).is_dir():
            problems.append(f"{key} = {path}: no such directory: must be {wanted}")
    _refuse(problems)


def _missing_question_files(config: Config) -> Iterator[str]:
    for name, path in question_files(config).items():
        if path.is_dir():
            yield f"questions.{_QUESTION_KEYS[name]} = {path}: is a directory: must be a file of questions"
        elif not path.exists():
            yield f"questions.{_QUESTION_KEYS[name]} = {path}: no such file"


def _refuse(problems: Iterable[str]) -> None:
    if told := "; ".join(problems):
        raise UserError(told)


def _hash_of_questions(config: Config) -> str:
    if config.questions.kind == "clinic":
        knowledge = files("medcritical_ray.clinic").joinpath("knowledge.toml").read_bytes()
        return hashlib.sha256(knowledge).hexdigest()
    files_by_split = question_files(config).items()
    return " ".join(_hash_of_file(f"questions.{_QUESTION_KEYS[name]}", path) for name, path in files_by_split)


def _hash_of_file(key: str, path: Path) -> str:
    try:
        return sha256_of(path)
    except FileNotFoundError:
        raise UserError(f"{key} = {path}: no such file") from None
    except OSError as error:
        raise UserError(f"{key} = {path}: cannot be read: {error.strerror}") from None


def prepare_questions(config: Config) -> PreparedQuestions:
    """Reads or makes all questions, in memory. Raises UserError if there are not as many as the config asks for."""
    check_question_files(config)
    quarantine, wanted = Quarantine(), config.questions
    files = {}
    for name, path in question_files(config).items():
        with told_by_key(f"questions.{_QUESTION_KEYS[name]}"):
            files[name] = list(quarantine.admit(path, read_questions(path, wanted.format, wanted.map)))
    kept = files if wanted.keep_shared_stems else _kept_apart(files)
    splits = _clinic_splits(config) if wanted.kind == "clinic" else _file_splits(config, kept)
    contamination = Contamination(
        splits=shared_stems(splits.by_name()), files=shared_stems(files), kept=wanted.keep_shared_stems
    )
    return PreparedQuestions(splits, quarantine, contamination)


def _kept_apart(files: dict[str, list[Question]]) -> dict[str, list[Question]]:
    """The files without the questions whose stems stand in a later one: those of test are neither trained on nor
    decide which policy is adopted, those of dev are not trained on."""
    names = list(files)
    return {
        name: list(without_stems_of(files[name], [files[later] for later in names[position + 1 :]]))
        for position, name in enumerate(names)
    }


def _file_splits(config: Config, files: dict[str, list[Question]]) -> Splits:
    """Dev and test are drawn from files of their own where there are any, else from the file of training questions."""
    wanted, seed = config.questions, config.run.seed
    drawn = split_questions(
        files["train"],
        num_train=wanted.num_train,
        num_dev=0 if wanted.dev_path else wanted.num_dev,
        num_test=0 if wanted.test_path else wanted.num_test,
        seed=seed,
    )
    return Splits(
        train=drawn.train,
        dev=draw(files["dev"], wanted.num_dev, seed, "dev") if wanted.dev_path else drawn.dev,
        test=draw(files["test"], wanted.num_test, seed, "test") if wanted.test_path else drawn.test,
    )


def write_prepared(prepared: PreparedQuestions, run: RunDirectory) -> None:
    """Keeps the questions, what they share and what was set aside with the run, and notes the counts; again if cut off
    here."""
    if run.done(STAGE_ONE, QUESTIONS_PHASE):
        return
    splits, contamination = prepared.splits.by_name(), prepared.contamination
    for name, questions in splits.items():
        write_questions(split_path(run, name), questions)
    write_json(contamination_path(run), contamination)
    prepared.quarantine.write(run.quarantine / "questions.parquet")
    run.mark_done(
        STAGE_ONE,
        QUESTIONS_PHASE,
        {
            "read": prepared.quarantine.counts(),
            "splits": {name: len(questions) for name, questions in splits.items()},
            "shared_stems": {pair: stems.num_stems for pair, stems in contamination.splits.items()},
            "shared_stems_of_files": {pair: stems.num_stems for pair, stems in contamination.files.items()},
        },
        beside=[run.path / name for name in ("data", "quarantine", "student")],
    )


def read_contamination(run: RunDirectory) -> Contamination:
    """What `write_prepared` has kept. Raises UserError if it has not."""
    return TypeAdapter(Contamination).validate_python(read_json(contamination_path(run)))


def contamination_path(run: RunDirectory) -> Path:
    return run.path / "data" / "contamination.json"


def split_path(run: RunDirectory, split: str) -> Path:
    return run.path / "data" / f"{split}.parquet"


def make_teacher(config: Config, taught: Iterable[Question]) -> Teacher:
    """The configured teacher, who knows the `taught` questions of stage 1."""
    if config.teacher.kind == "clinic":
        return ClinicTeacher(load_world())
    if config.teacher.kind == "distilled":
        return TemplateTeacher(templates_of(taught, Path(config.teacher.path or "")))
    limits = {"max_steps": config.teacher.max_steps, "max_step_chars": config.teacher.max_step_chars}
    templates = {question.id: explained_template(question, **limits) for question in taught}
    return TemplateTeacher({question_id: template for question_id, template in templates.items() if template})


def make_truth(config: Config, train: QuestionSet) -> Callable[[str, str], bool] | None:
    """Whether a trace of a training question, by its id, is right in every step; None where nobody knows the steps."""
    if config.questions.kind != "clinic":
        return None
    teacher = ClinicTeacher(load_world())
    templates = {question.id: teacher.template(question.unkeyed()) or "" for question in train}
    return lambda question_id, trace: steps_of(trace) == steps_of(templates[question_id])


def _clinic_splits(config: Config) -> Splits:
    def questions(split: Split, count: int, seed: int) -> list[Question]:
        return list(make_questions(load_world(), split, count, seed=seed, difficulty=config.questions.difficulty))

    return Splits(
        train=questions("train", config.questions.num_train, config.run.seed),
        dev=questions("dev", config.questions.num_dev, EXAM_SEED),
        test=questions("test", config.questions.num_test, EXAM_SEED),
    )


def run_config(run: RunDirectory, remedy: str) -> Config:
    """The config in a run's record. Raises UserError, which ends with the remedy, if this version of the package does
    not take it."""
    try:
        return Config.model_validate(run.record().config)
    except ValidationError:
        raise UserError(f"the config in {run.path / 'run.json'} is of another version: {remedy}") from None


def round_questions(config: Config, train: QuestionSet, iteration: int) -> QuestionSet:
    """The training questions of one round: a window that moves on over those that stage 1 left, and starts over."""
    num_questions = config.generate.num_questions or train.num_questions
    return train.window(config.teacher.num_questions_seen + (iteration - 1) * num_questions, num_questions)
