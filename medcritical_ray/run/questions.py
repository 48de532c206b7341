"""The questions of a run: read or made, split, kept with it, and those of each iteration."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from medcritical_ray.clinic.exam import Split, make_questions
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config import Config
from medcritical_ray.errors import Problems, told_by_key
from medcritical_ray.files import read_json, write_json
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
from medcritical_ray.run.input_files import QUESTION_KEYS, check_question_files, question_files

QUESTIONS_PHASE = "questions"

EXAM_SEED = 0
"""The clinic's dev and test questions are those of this seed in every run, so that runs can be compared."""


@dataclass(frozen=True, slots=True)
class PreparedQuestions:
    """The questions of a run by split, the rows that were set aside, and what splits and files have in common."""

    splits: Splits
    quarantine: Quarantine
    contamination: Contamination


def prepare_questions(config: Config) -> PreparedQuestions:
    """Reads or makes all questions, in memory. Raises UserError, for all files together, if there are not as many as
    the config asks for."""
    check_question_files(config)
    quarantine, wanted, problems = Quarantine(), config.questions, Problems()
    files = {}
    for name, path in question_files(config).items():
        with problems, told_by_key(f"questions.{QUESTION_KEYS[name]}"):
            files[name] = list(quarantine.admit(path, read_questions(path, wanted.format, wanted.map)))
    problems.refuse()
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
    wanted, seed, problems = config.questions, config.run.seed, Problems()
    splits = {}
    with problems:
        splits = split_questions(
            files["train"],
            num_train=wanted.num_train,
            num_dev=0 if wanted.dev_path else wanted.num_dev,
            num_test=0 if wanted.test_path else wanted.num_test,
            seed=seed,
        ).by_name()
    for name, count in (("dev", wanted.num_dev), ("test", wanted.num_test)):
        if name in files:
            with problems:
                splits[name] = draw(files[name], count, seed, name)
    problems.refuse()
    return Splits(**splits)


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


def _clinic_splits(config: Config) -> Splits:
    def questions(split: Split, count: int, seed: int) -> list[Question]:
        return list(make_questions(load_world(), split, count, seed=seed, difficulty=config.questions.difficulty))

    return Splits(
        train=questions("train", config.questions.num_train, config.run.seed),
        dev=questions("dev", config.questions.num_dev, EXAM_SEED),
        test=questions("test", config.questions.num_test, EXAM_SEED),
    )


def iteration_questions(config: Config, train: QuestionSet, iteration: int) -> QuestionSet:
    """The training questions of one iteration: a window that moves on over those that stage 1 left, and starts over."""
    num_questions = config.generate.num_questions or train.num_questions
    return train.window(config.teacher.num_questions_seen + (iteration - 1) * num_questions, num_questions)
