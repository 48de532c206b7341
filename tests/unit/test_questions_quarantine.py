from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.questions import BadRow, Quarantine, read_questions
from medcritical_ray.records import Question, lettered

QUESTION = Question(id="q1", source="ward", stem="Which?", options=lettered(["measles", "mumps"]), key="A")


def bad(row: int, reason: str) -> BadRow:
    return BadRow(file="q.csv", row=row, reason=reason)


def test_every_row_is_loaded_or_quarantined_with_its_reason():
    quarantine = Quarantine()
    rows = [bad(1, "no stem"), QUESTION, bad(3, "no key"), bad(4, "no key")]
    assert list(quarantine.admit("q.csv", rows)) == [QUESTION]
    assert quarantine.counts() == {
        "rows": 4,
        "loaded": 1,
        "quarantined": 3,
        "reasons": {"no key": 2, "no stem": 1},
    }


def test_counts_add_up_over_a_file_with_a_malformed_line(tmp_path: Path):
    path = tmp_path / "q.jsonl"
    good = '{"question": "Which?", "options": {"A": "x", "B": "y"}, "answer_idx": "A"}'
    path.write_text(f'{good}\n{{"question": \n{good}\n', encoding="utf-8")
    quarantine = Quarantine()
    assert len(list(quarantine.admit(path, read_questions(path)))) == 2
    assert quarantine.counts() == {"rows": 3, "loaded": 2, "quarantined": 1, "reasons": {"unreadable row": 1}}


def test_bad_rows_are_written_with_file_row_and_reason(tmp_path: Path):
    quarantine = Quarantine()
    list(quarantine.admit("q.csv", [QUESTION, bad(2, "no key")]))
    quarantine.write(tmp_path / "quarantine" / "questions.parquet")
    written = pq.read_table(tmp_path / "quarantine" / "questions.parquet").to_pylist()
    assert written == [{"file": "q.csv", "row": 2, "reason": "no key"}]


def test_an_empty_quarantine_is_written_with_its_columns(tmp_path: Path):
    Quarantine().write(tmp_path / "questions.parquet")
    table = pq.read_table(tmp_path / "questions.parquet")
    assert (table.num_rows, table.column_names) == (0, ["file", "row", "reason"])


def test_a_file_without_rows_is_the_user_s_error():
    with pytest.raises(UserError, match=r"q\.csv has no rows"):
        list(Quarantine().admit("q.csv", []))


def test_a_file_without_a_usable_row_is_the_user_s_error_also_after_a_good_file():
    quarantine = Quarantine()
    list(quarantine.admit("good.csv", [QUESTION, bad(2, "no stem")]))
    with pytest.raises(
        UserError, match=r"q\.csv has no usable question among its 2 rows \(no key: 2; the first: row 1\)"
    ):
        list(quarantine.admit("q.csv", [bad(1, "no key"), bad(2, "no key")]))
