"""The tasks for lm-evaluation-harness: what they ask is what we ask, and they read answers as we do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import main
from medcritical_ray.grading import grade_attempt
from medcritical_ray.harness.tasks import write_tasks
from medcritical_ray.harness.utils import letters
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import new_record

QUESTIONS = [
    Question(id="q1", source="hand", stem="What\u2028helps?", options=lettered(["rest", "水", "heat"]), key="AC"),
    Question(id="q2", source="hand", stem="Is it {{so}}?", options=lettered(["yes", "no"]), key="B", explanation="no"),
]
PIECES = st.lists(
    st.sampled_from([" ", "rest", "水; ", "(", "(A)", "(CA)", "(AAC)", "(D)", "(a)", "\n", "\r\n", "\u2028", "\x85"]),
    max_size=6,
).map("".join)


@given(PIECES, st.sampled_from(["", "Answer:", "\nAnswer: "]), PIECES)
def test_an_answer_is_read_as_our_grading_reads_it(before: str, mark: str, stated: str):
    question, text = QUESTIONS[0], before + mark + stated
    grade = grade_attempt(question, text, finished=True)
    assert letters([[text]], [{"letters": "ABC", "texts": ["rest", "水", "heat"]}]) == [[grade.answer]]
    assert (grade.answer == question.key) == grade.correct


def test_several_letters_are_read_in_any_order_and_each_once():
    texts = ["Answer: heat; rest (CA)", "Answer: rest (A)\nThat is all.", "Answer: (AACA)"]
    assert letters([texts], [{"letters": "ABC", "texts": ["rest", "水", "heat"]}]) == [["AC", "", "AC"]]


def test_a_row_has_the_prompt_and_the_key_and_nothing_that_explains_it(tmp_path: Path):
    write_tasks(tmp_path / "exam", QUESTIONS, 100)
    with (tmp_path / "exam" / "questions.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    prompts = [solve_prompt(question.unkeyed()) for question in QUESTIONS]
    assert rows == [
        {"id": "q1", "prompt": prompts[0], "letters": "ABC", "texts": ["rest", "水", "heat"], "key": "AC"},
        {"id": "q2", "prompt": prompts[1], "letters": "AB", "texts": ["yes", "no"], "key": "B"},
    ]


def test_tasks_are_called_after_their_directory(tmp_path: Path):
    names = write_tasks(tmp_path / "my exam, 2025*", QUESTIONS, 100)
    assert names == ["medcritical_my_exam_2025__chat", "medcritical_my_exam_2025__completions"]
    for name, kind in zip(names, ("chat", "completions"), strict=True):
        assert f"task: {name}\n" in (tmp_path / "my exam, 2025*" / f"{kind}.yaml").read_text()


def in_a_run(path: Path, config: dict[str, Any]) -> Path:
    with RunDirectory.create(path, new_record(config), resume_command=""):
        write_questions(path / "data" / "test.parquet", QUESTIONS)
    return path / "data" / "test.parquet"


def test_questions_of_a_run_are_asked_with_its_limit_less_the_end_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = in_a_run(tmp_path / "run", {"generate": {"sampling": {"max_tokens": 110}}})
    assert main(["questions", str(file), "--lm-eval", str(tmp_path / "tasks" / "exam")]) == 0
    assert "max_gen_toks: 109\n" in (tmp_path / "tasks" / "exam" / "chat.yaml").read_text()
    assert capsys.readouterr().out.endswith(
        f"{tmp_path}/tasks/exam: task medcritical_exam_chat\n{tmp_path}/tasks/exam: task medcritical_exam_completions\n"
    )


def test_questions_of_no_run_are_asked_with_the_default_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_questions(tmp_path / "exam.jsonl", QUESTIONS)
    assert main(["questions", str(tmp_path / "exam.jsonl"), "--lm-eval", str(tmp_path / "exam"), "--json"]) == 0
    assert "max_gen_toks: 1023\n" in (tmp_path / "exam" / "chat.yaml").read_text()
    assert json.loads(capsys.readouterr().out)["loaded"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "q.csv does not exist"),
        (b"Question,Options,Answer\nWhich?,A x\\nB y,nan\n", "has no usable question among its 1 rows"),
        (b"\x89PNG\r\n\x1a\n", "is neither UTF-8 nor GB18030 text"),
    ],
)
def test_a_file_of_no_use_leaves_no_task(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if content is not None:
        (tmp_path / "q.csv").write_bytes(content)
    assert main(["questions", str(tmp_path / "q.csv"), "--lm-eval", str(tmp_path / "exam")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "exam").exists()


def test_a_run_of_another_version_does_not_tell_its_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = in_a_run(tmp_path / "run", {"generate": {"unknown": 1}})
    assert main(["questions", str(file), "--lm-eval", str(tmp_path / "exam")]) == 2
    assert "run.json is of another version: copy the questions to another place\n" in capsys.readouterr().err


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    before = (tmp_path / "questions.jsonl").read_bytes()
    assert main(["questions", str(tmp_path / "questions.jsonl"), "--lm-eval", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --lm-eval {tmp_path} exists: choose another directory, or move it away\n"
    assert (tmp_path / "questions.jsonl").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_questions(tmp_path / "q.jsonl", QUESTIONS)
    assert main(["questions", str(tmp_path / "q.jsonl"), "--lm-eval", "/proc/exam"]) == 2
    assert capsys.readouterr().err.startswith("error: --lm-eval /proc/exam: cannot be written below /proc")
