"""Answer lines as policies write them, in both languages, graded by us and by the harness: tests/data/answers.toml."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.grading import grade_attempt
from medcritical_ray.harness.utils import letters
from medcritical_ray.records import LETTERS, Option, Question

TABLE = tomllib.loads((Path(__file__).parents[1] / "data" / "answers.toml").read_text(encoding="utf-8"))
ROWS: list[dict[str, Any]] = [row for rows in TABLE["answers"].values() for row in rows]
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["Answer:", "答案：", "【答案】", "amoxicillin", "（Ｃ）", "(C)", "C", "、", " or ", "不是", "\n", "**"]
        ),
        st.text(max_size=5),
    ),
    max_size=8,
).map("".join)


def question(name: str) -> Question:
    row = TABLE["questions"][name]
    options = tuple(map(Option, row.get("letters", LETTERS), row["options"]))
    return Question(id=name, source="hand", stem=row["stem"], options=options, key=row["key"])


def read_by_the_harness(asked: Question, output: str) -> str:
    """What the harness reads: it never sees whether an output was cut off."""
    doc = {"letters": "".join(o.letter for o in asked.options), "texts": [o.text for o in asked.options]}
    return letters([[output]], [doc])[0][0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["output"][-40:])
def test_an_answer_is_graded_as_a_careful_examiner_would(row: dict[str, Any]):
    grade = grade_attempt(question(row["of"]), row["output"], finished=row.get("finished", True))
    assert (grade.answer, grade.correct, grade.agrees) == (row["letters"], row["correct"], row["agrees"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["output"][-40:])
def test_the_harness_reads_it_alike(row: dict[str, Any]):
    asked = question(row["of"])
    whole = grade_attempt(asked, row["output"], finished=True)
    assert read_by_the_harness(asked, row["output"]) == whole.answer


def test_the_table_holds_enough_in_both_languages_and_no_row_twice():
    languages = Counter(TABLE["questions"][row["of"]]["language"] for row in ROWS)
    assert languages["en"] >= 75
    assert languages["zh"] >= 75
    assert len({(row["of"], row["output"], row.get("finished", True)) for row in ROWS}) == len(ROWS) >= 150


@given(PIECES)
def test_whatever_is_written_is_graded_and_only_what_has_an_answer_mark_on_its_last_line_is_right(output: str):
    asked = question("pneumonia")
    grade = grade_attempt(asked, output, finished=True)
    assert read_by_the_harness(asked, output) == grade.answer
    last_line = (output.strip().splitlines() or [""])[-1].casefold()
    assert not grade.correct or "answer" in last_line or "答案" in last_line


@given(st.lists(st.sampled_from("AC E,、;()（）.not或aspirin"), max_size=12).map("".join))
def test_the_harness_reads_alike_what_follows_an_answer_mark(stated: str):
    for name, mark in (("soluble", "Answer: "), ("feiyan", "答案：")):
        asked = question(name)
        grade = grade_attempt(asked, mark + stated, finished=True)
        assert read_by_the_harness(asked, mark + stated) == grade.answer
        assert grade.correct == (grade.answer == asked.key)
