from dataclasses import replace
from pathlib import Path

import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered

QUESTIONS = [
    Question(
        id=f"q{number}",
        source="hand",
        stem=f"Which of {number}?",
        options=lettered(["one", "two"]),
        key="B",
        explanation="It is." if number % 2 else None,
        labels={"ask": "number"},
    )
    for number in range(7)
]


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    """Seven questions in blocks of three."""
    write_questions(tmp_path / "train.parquet", QUESTIONS)
    return QuestionSet.whole(tmp_path / "train.parquet", block_size=3)


def ids(questions: list[Question] | QuestionSet) -> list[str]:
    return [question.id for question in questions]


def test_questions_are_read_back_as_they_were_written(questions: QuestionSet):
    assert list(questions) == QUESTIONS


def test_the_last_block_may_be_shorter(questions: QuestionSet):
    assert questions.num_blocks == 3
    assert [ids(questions.block(index)) for index in range(3)] == [["q0", "q1", "q2"], ["q3", "q4", "q5"], ["q6"]]


def test_full_blocks_leave_no_empty_one(questions: QuestionSet):
    assert questions.window(0, 6).num_blocks == 2


def test_a_window_has_blocks_of_its_own(questions: QuestionSet):
    window = questions.window(2, 4)
    assert [ids(window.block(index)) for index in range(window.num_blocks)] == [["q2", "q3", "q4"], ["q5"]]


def test_a_window_past_the_end_goes_on_at_the_start(questions: QuestionSet):
    assert ids(questions.window(5, 4)) == ["q5", "q6", "q0", "q1"]
    assert ids(questions.window(5 + 4, 4)) == ["q2", "q3", "q4", "q5"]


def test_windows_that_move_on_meet_every_question_equally_often(questions: QuestionSet):
    met = [question_id for number in range(7) for question_id in ids(questions.window(3 + number * 2, 2))]
    assert sorted(met) == sorted(2 * [f"q{number}" for number in range(7)])


def test_blocks_are_read_across_groups_of_rows_and_past_the_end(tmp_path: Path):
    many = [replace(QUESTIONS[0], id=f"q{number}") for number in range(2500)]
    write_questions(tmp_path / "many.parquet", many)
    questions = QuestionSet.whole(tmp_path / "many.parquet", block_size=900)
    assert ids(questions) == [question.id for question in many]
    assert ids(questions.window(2400, 1200).block(1)) == [f"q{number}" for number in range(800, 1100)]


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_a_file_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path):
    if content is not None:
        (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        QuestionSet.whole(tmp_path / "train.parquet", block_size=3)
