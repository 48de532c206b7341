"""Question files of any content: each row is loaded or set aside, and a file that cannot be read is told in a line."""

import csv
import io
import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import (
    LONG,
    command,
    file_of,
    in_a_moment,
    is_one_line_error,
    json_values,
    plain,
    questions,
    scalars,
    texts,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from medcritical_ray.errors import UserError
from medcritical_ray.formats import Format
from medcritical_ray.questions import Quarantine, read_questions, write_questions
from medcritical_ray.records import Question

COLUMNS = {
    "native": ["id", "source", "stem", "options", "key", "explanation", "labels"],
    "cmexam": ["Question", "Options", "Answer", "Explanation", "Difficulty level"],
    "medqa": ["question", "options", "answer_idx", "meta_info"],
    "medmcqa": ["id", "question", "opa", "opb", "opc", "opd", "cop", "exp", "subject_name"],
    "medxpertqa": ["id", "question", "options", "label", "body_system"],
    "cmb": ["question", "option", "answer", "exam_type"],
    "pubmedqa": ["QUESTION", "CONTEXTS", "final_decision", "LONG_ANSWER"],
    "mapped": ["stem", "options", "key", "x", "y", ""],
}
SUFFIXES = [".csv", ".jsonl", ".json", ".parquet", ".txt", ""]
ENCODINGS = ["utf-8", "utf-8-sig", "gb18030", "utf-16", "latin-1"]

keys = st.sampled_from(["A", "B", "a", "AC", "A, C", "0", "1", "2.0", "Ａ", "yes", "", "nan", "?"]) | st.integers(-1, 3)
options = st.one_of(
    st.sampled_from(["A rest\nB water", r"A rest\nB water", '{"A": "rest", "B": "water"}', '["rest", "water"]']),
    st.dictionaries(st.sampled_from("ABCDEFGHIJKx"), texts, max_size=4),
    st.lists(st.fixed_dictionaries({"letter": texts | st.sampled_from("ABC"), "text": texts}), max_size=4),
    st.lists(texts, max_size=3),
    st.fixed_dictionaries({"label": st.lists(texts, max_size=3), "text": st.lists(texts, max_size=3)}),
)
cells = texts | keys | options | json_values
written_cells = texts | st.sampled_from(["A", "B", "1", "A rest\nB water", r"A rest\nB water"])


@st.composite
def tables(draw: st.DrawFn, cell: st.SearchStrategy[Any] = cells) -> list[dict[str, Any]]:
    """Rows of one format whose cells hold anything, some of it what belongs there."""
    names = COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))]
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, cell)), min_size=1, max_size=4))


def num_told(path: Path) -> int | None:
    """Rows that were loaded or set aside, as they are counted; None if the file is refused."""
    quarantine = Quarantine()
    try:
        list(quarantine.admit(path, read_questions(path)))
    except UserError:
        return len(quarantine.bad_rows) or None
    return int(quarantine.counts()["rows"])


@given(st.binary(max_size=300), st.sampled_from(SUFFIXES))
def test_a_file_of_any_bytes_is_refused_in_a_line(content: bytes, suffix: str):
    with file_of(content, f"exam{suffix}") as path:
        told = command("questions", path)
    assert is_one_line_error(told)
    assert str(path) in told.err


@given(texts.map(plain), st.sampled_from(ENCODINGS), st.sampled_from(SUFFIXES))
def test_a_file_of_any_text_is_refused_in_a_line(content: str, encoding: str, suffix: str):
    with file_of(content.encode(encoding, "replace"), f"exam{suffix}") as path:
        assert is_one_line_error(command("questions", path))


@given(tables(), st.booleans())
def test_each_object_on_a_line_is_loaded_or_set_aside(rows: list[dict[str, Any]], as_ascii: bool):
    lines = [json.dumps(row, ensure_ascii=as_ascii) for row in (rows if as_ascii else plain(rows))]
    with file_of("\n".join(lines).encode(), "exam.jsonl") as path:
        assert num_told(path) in (len(rows), None)


@given(tables(), st.booleans())
def test_each_object_of_a_json_table_is_loaded_or_set_aside(rows: list[dict[str, Any]], by_id: bool):
    table = {f"id {number}": row for number, row in enumerate(rows)} if by_id else rows
    with file_of(json.dumps(table).encode(), "exam.json") as path:
        assert num_told(path) in (len(rows), None)


@given(tables(written_cells), st.sampled_from(ENCODINGS))
def test_each_record_of_a_csv_is_loaded_or_set_aside(rows: list[dict[str, Any]], encoding: str):
    written = io.StringIO()
    csv.writer(written).writerows([rows[0].keys(), *(plain(list(row.values())) for row in rows)])
    with file_of(written.getvalue().encode(encoding, "replace"), "exam.csv") as path:
        assert num_told(path) in (len(rows), None)


@given(
    st.lists(
        st.fixed_dictionaries({"stem": scalars.map(plain), "options": options.map(plain), "key": keys}),
        min_size=1,
        max_size=3,
    )
)
def test_each_row_of_a_parquet_file_is_loaded_or_set_aside(rows: list[dict[str, Any]]):
    with file_of(b"", "exam.parquet") as path:
        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
        except (pa.ArrowException, OverflowError, TypeError):
            assume(False)  # a column has one type
        assert num_told(path) == len(rows)


@given(st.data())
def test_a_parquet_file_with_flipped_bytes_is_read_or_refused(data: st.DataObject):
    written = io.BytesIO()
    pq.write_table(pa.table({"stem": ["Which?"], "options": [["rest", "water"]], "key": ["A"]}), written)
    content = bytearray(written.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with file_of(bytes(content), "exam.parquet") as path:
        assert num_told(path) in (1, None)


@given(
    tables(),
    st.dictionaries(
        st.sampled_from(["stem", "options", "key", "explanation", "id", "labels", "x"]) | texts,
        st.sampled_from(["stem", "options", "key", "id", "x", "x,y", "opa,opb", "question", ",", " x ", "x,"]),
        max_size=4,
    ),
    st.sampled_from(get_args(Format)),
)
def test_any_mapping_and_any_format_may_be_asked_for(rows: list[dict[str, Any]], mapping: dict[str, str], name: Format):
    with file_of("\n".join(map(json.dumps, rows)).encode(), "exam.jsonl") as path:
        try:
            told = list(read_questions(path, name, mapping))
        except UserError:
            return
    assert len(told) == len(rows)


@given(
    st.lists(questions(), min_size=1, max_size=2, unique_by=lambda each: each.id), st.sampled_from(["jsonl", "parquet"])
)
def test_questions_of_any_text_are_written_and_read_back_the_same(written: list[Question], suffix: str):
    with file_of(b"", f"exam.{suffix}") as path:
        write_questions(path, written)
        assert list(read_questions(path)) == written


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_very_long_text_is_one_row(text: str, suffix: str, tmp_path: Path):
    rows = [
        {"stem": text, "options": '["rest", "water"]', "key": text},
        {"stem": "Which?", "options": text, "key": "A"},
    ]
    path = tmp_path / f"exam{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            on_one_line = [[cell.replace("\n", " ") for cell in row.values()] for row in rows]
            csv.writer(file).writerows([rows[0].keys(), *on_one_line])
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    with in_a_moment():
        assert num_told(path) == len(rows)
