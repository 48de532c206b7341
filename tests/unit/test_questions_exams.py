"""The readers on the real exam files, where they are at hand."""

import os
from collections import Counter
from pathlib import Path

import pytest

from medcritical_ray.grading import grade_attempt
from medcritical_ray.harness.utils import letters as read_by_the_harness
from medcritical_ray.language import CHINESE, ENGLISH, Language, language_of
from medcritical_ray.questions import (
    BadRow,
    Quarantine,
    read_questions,
    shared_stems,
    split_questions,
    write_questions,
)
from medcritical_ray.records import Question
from medcritical_ray.trace import format_answer

EXAMS = Path(os.environ.get("MEDCRITICAL_EXAMS") or Path(__file__).parents[3] / "shared" / "data")


def exam(name: str) -> Path:
    path = EXAMS / name
    if not path.is_file():
        pytest.skip(f"{name} is not at hand; MEDCRITICAL_EXAMS may name a folder that holds it")
    return path


def questions_of(path: Path) -> list[Question]:
    return [row for row in read_questions(path) if isinstance(row, Question)]


def test_every_row_of_cmexam_is_accounted_for():
    path = exam("cmexam/val.csv")
    quarantine = Quarantine()
    assert len(list(quarantine.admit(path, read_questions(path)))) == 6810
    assert quarantine.counts() == {"rows": 6811, "loaded": 6810, "quarantined": 1, "reasons": {"no key": 1}}
    assert quarantine.bad_rows == [BadRow(file=str(path), row=5357, reason="no key")]


def test_the_oddities_of_cmexam_are_kept():
    questions = questions_of(exam("cmexam/val.csv"))
    letters = Counter("".join(option.letter for option in question.options) for question in questions)
    assert letters == {"ABCDE": 6605, "ABCD": 202, "BCDE": 2, "ABDE": 1}
    assert sum(len(question.key) > 1 for question in questions) == 210
    assert sum(question.explanation is None for question in questions) == 1039
    repeated = [q for q in questions if len({option.text for option in q.options}) < len(q.options)]
    assert len(repeated) == 7


def test_cmexam_is_written_and_read_back_the_same(tmp_path: Path):
    questions = questions_of(exam("cmexam/val.csv"))
    write_questions(tmp_path / "cmexam.parquet", questions)
    assert questions_of(tmp_path / "cmexam.parquet") == questions


def test_cmexam_is_split_without_a_shared_stem():
    questions = questions_of(exam("cmexam/val.csv"))
    splits = split_questions(questions, num_train=600, num_dev=100, num_test=300, seed=0)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (600, 100, 300)
    assert {stems.num_stems for stems in shared_stems(splits.by_name()).values()} == {0}


def test_every_row_of_medqa_is_loaded():
    questions = questions_of(exam("medqa/us_test.jsonl"))
    assert len(questions) == 1273
    assert {len(question.options) for question in questions} == {5}
    assert Counter(question.labels["meta_info"] for question in questions) == {"step1": 679, "step2&3": 594}


@pytest.mark.parametrize(("name", "language"), [("cmexam/val.csv", CHINESE), ("medqa/us_test.jsonl", ENGLISH)])
def test_every_question_of_an_exam_is_asked_in_its_language(name: str, language: Language):
    assert {language_of(question.unkeyed()) for question in questions_of(exam(name))} == {language}


@pytest.mark.parametrize("name", ["cmexam/val.csv", "medqa/us_test.jsonl"])
def test_the_answer_line_of_every_key_and_every_option_is_read_as_such(name: str):
    for question in questions_of(exam(name)):
        texts = {option.letter: option.text for option in question.options}
        for letters in {question.key, *texts}:
            line = format_answer([texts[letter] for letter in letters], letters, language_of(question.unkeyed()))
            grade = grade_attempt(question, line, finished=True)
            assert (grade.answer, grade.agrees, grade.correct) == (letters, True, letters == question.key), line
            doc = {"letters": "".join(texts), "texts": list(texts.values())}
            assert read_by_the_harness([[line]], [doc]) == [[letters]]
