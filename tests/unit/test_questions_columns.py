"""Exams in every form that their makers chose, and tables that nobody knows."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medcritical_ray.config import QuestionsConfig
from medcritical_ray.errors import UserError
from medcritical_ray.questions import BadRow, Format, read_questions
from medcritical_ray.questions.readers.columns import first_number, key_letters, mapped_columns
from medcritical_ray.records import Option, Question, lettered

OPTIONS = lettered(["rest", "fluids", "amoxicillin"])


def one(path: Path, **how: Any) -> Question:
    (question,) = read_questions(path, **how)
    assert isinstance(question, Question), question
    return question


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"A": "rest", "B": "fluids", "C": "amoxicillin"},
        {"A": "rest", "B": "fluids", "C": "amoxicillin", "D": "", "E": None},
        {"label": ["A", "B", "C"], "text": ["rest", "fluids", "amoxicillin"]},
        ["rest", "fluids", "amoxicillin"],
        [
            {"letter": "A", "content": "rest"},
            {"letter": "B", "content": "fluids"},
            {"letter": "C", "content": "amoxicillin"},
        ],
        [{"key": "A", "value": "rest"}, {"key": "B", "value": "fluids"}, {"key": "C", "value": "amoxicillin"}],
        "A rest\nB fluids\nC amoxicillin",
        "A. rest\\nB. fluids\\nC. amoxicillin",
        "(A) rest\n(B) fluids\n(C) amoxicillin",
        "A、rest\nB、fluids\nC、amoxicillin",
        '{"A": "rest", "B": "fluids", "C": "amoxicillin"}',
        '["rest", "fluids", "amoxicillin"]',
    ],
)
def test_options_are_read_in_every_form(options: Any, tmp_path: Path):
    path = jsonl(tmp_path / "q.jsonl", {"stem": "Which?", "options": options, "key": "C"})
    assert one(path, format="mapped").options == OPTIONS


@pytest.mark.parametrize(
    ("value", "first", "letters"),
    [
        ("C", 1, "C"),
        ("c", 1, "C"),
        (" C ", 1, "C"),
        ("Ｃ", 1, "C"),
        ("C,A", 1, "AC"),
        ("A、C", 1, "AC"),
        ("AC", 1, "AC"),
        (["C", "A"], 1, "AC"),
        ("amoxicillin", 1, "C"),
        (3, 1, "C"),
        (2, 0, "C"),
        (2.0, 0, "C"),
        ("3", 1, "C"),
        ("3.0", 1, "C"),
        (-1, 0, ""),
        (4, 1, "?"),
        (0, 1, "?"),
        ("", 1, ""),
        (None, 1, ""),
        ("nan", 1, ""),
        (float("nan"), 1, ""),
        ("aspirin", 1, "?"),
    ],
)
def test_keys_are_read_in_every_form(value: Any, first: int, letters: str):
    assert key_letters(value, OPTIONS, first) == letters


def test_keys_count_from_zero_where_a_zero_stands():
    assert first_number([1, 3, 0]) == 0
    assert first_number([1, 3, 4]) == 1
    assert first_number(["A", "B"]) == 1


def test_medqa_with_four_options_and_in_chinese(tmp_path: Path):
    row = {"question": "最可能的诊断是？", "answer": "肺炎", "options": {"A": "肺炎", "B": "哮喘"}, "answer_idx": "A"}
    question = one(jsonl(tmp_path / "q.jsonl", {**row, "meta_info": "卫生法规", "metamap_phrases": []}))
    assert (question.source, question.key, question.labels) == ("medqa", "A", {"meta_info": "卫生法规"})


@pytest.mark.parametrize(("cops", "keys"), [([1, 4], ["A", "D"]), ([0, 3], ["A", "D"])])
def test_medmcqa_counts_as_its_file_does(cops: list[int], keys: list[str], tmp_path: Path):
    texts = {"opa": "rest", "opb": "fluids", "opc": "amoxicillin", "opd": "aspirin"}
    rows = [{"id": f"m{n}", "question": "Which?", "exp": "So.", "cop": cop, **texts} for n, cop in enumerate(cops)]
    path = jsonl(
        tmp_path / "dev.json",  # as its makers have it: lines, whatever the name says
        *({**row, "subject_name": "Medicine"} for row in rows),
    )
    questions = [row for row in read_questions(path) if isinstance(row, Question)]
    assert [question.key for question in questions] == keys
    assert questions[0].id == "m0"
    assert questions[0].explanation == "So."
    assert questions[0].labels == {"subject_name": "Medicine"}
    assert [option.text for option in questions[0].options] == list(texts.values())


def test_a_number_that_is_another_options_text_is_no_key(tmp_path: Path):
    rows = [{"stem": "How many?", "options": ["2", "3", "4", "5"], "key": key} for key in ("3", "C", "5", "2")]
    read = list(read_questions(jsonl(tmp_path / "q.jsonl", *rows), mapping={"key": "key"}))
    reason = "key is the number of one option and the text of another"
    assert [row.reason if isinstance(row, BadRow) else row.key for row in read] == [reason, "C", reason, reason]


def test_medmcqas_numbers_count_also_where_options_are_numbers(tmp_path: Path):
    row = {"question": "How many?", "opa": "2", "opb": "3", "opc": "4", "opd": "5", "cop": 3}
    assert one(jsonl(tmp_path / "q.jsonl", row)).key == "C"


@pytest.mark.parametrize("options", ["A 发热\\nB 咳嗽", [{"key": "A", "value": "发热"}, {"key": "B", "value": "咳嗽"}]])
def test_cmexam_is_read_from_other_files_than_csv(options: Any, tmp_path: Path):
    row = {"Question": "最可能的\\n诊断是？", "Options": options, "Answer": "A", "Explanation": None}
    question = one(jsonl(tmp_path / "q.jsonl", {**row, "Clinical Department": "内科"}))
    assert (question.source, question.stem, question.explanation) == ("cmexam", "最可能的\n诊断是？", None)
    assert [tuple(option) for option in question.options] == [("A", "发热"), ("B", "咳嗽")]
    assert question.labels == {"Clinical Department": "内科"}


def test_medmcqa_without_keys_is_set_aside(tmp_path: Path):
    texts = {"opa": "rest", "opb": "fluids", "opc": "amoxicillin", "opd": "aspirin"}
    pq.write_table(
        pa.Table.from_pylist([{"id": "t", "question": "Which?", "cop": -1, **texts}]), tmp_path / "test.parquet"
    )
    (row,) = read_questions(tmp_path / "test.parquet")
    assert row == BadRow(file=str(tmp_path / "test.parquet"), row=1, reason="no key")


def test_medxpertqa_has_ten_options_which_its_stem_need_not_repeat(tmp_path: Path):
    row = {
        "id": "Text-0",
        "question": "Which is it?\nAnswer Choices: (A) a0 (B) b1",
        "options": {letter: f"{letter.lower()}{n}" for n, letter in enumerate("ABCDEFGHIJ")},
        "label": "J",
        "body_system": "Nervous",
    }
    question = one(jsonl(tmp_path / "q.jsonl", row))
    assert (question.id, question.source, question.stem, question.key) == ("Text-0", "medxpertqa", "Which is it?", "J")
    assert question.options[9] == Option("J", "j9")
    assert question.labels == {"body_system": "Nervous"}


def test_cmb_is_one_array_with_options_that_may_be_empty(tmp_path: Path):
    row = {
        "exam_type": "医师考试",
        "question": "哪些？",
        "answer": "AC",
        "question_type": "多项选择题",
        "option": {"A": "一", "B": "二", "C": "三", "D": "", "E": ""},
    }
    (tmp_path / "cmb.json").write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    question = one(tmp_path / "cmb.json")
    assert (question.source, question.key, len(question.options)) == ("cmb", "AC", 3)
    assert question.labels == {"exam_type": "医师考试", "question_type": "多项选择题"}


def test_pubmedqa_asks_yes_no_or_maybe_about_an_abstract(tmp_path: Path):
    row = {
        "QUESTION": "Does it help?",
        "CONTEXTS": ["We tried.", "It did."],
        "LONG_ANSWER": "Yes.",
        "final_decision": "yes",
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps({"21645374": row}))
    question = one(tmp_path / "ori_pqal.json")
    assert question == Question(
        id="21645374",
        source="pubmedqa",
        stem="We tried.\nIt did.\nDoes it help?",
        options=lettered(["yes", "no", "maybe"]),
        key="A",
        explanation="Yes.",
    )
    table = {
        "pubid": 7,
        "question": "Does it?",
        "context": {"contexts": ["No."]},
        "final_decision": "maybe",
        "long_answer": "",
    }
    pq.write_table(pa.Table.from_pylist([table]), tmp_path / "q.parquet")
    assert (one(tmp_path / "q.parquet").id, one(tmp_path / "q.parquet").key) == ("7", "C")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_encodings_are_taken_as_they_are_found(encoding: str, tmp_path: Path):
    (tmp_path / "q.csv").write_text("Question,Options,Answer\n脉搏的范围是？,A 快\\nB 慢,B\n", encoding=encoding)
    assert one(tmp_path / "q.csv").stem == "脉搏的范围是？"


def test_any_table_is_read_by_a_mapping(tmp_path: Path):
    (tmp_path / "q.csv").write_text("nr,frage,a,b,c,richtig,fach\n7,Welche?,x,y,z,3,Chirurgie\n8,Welche?,x,y,,1,HNO\n")
    mapping = {"id": "nr", "stem": "frage", "options": "a, b, c", "key": "richtig", "labels": "fach"}
    first, second = read_questions(tmp_path / "q.csv", mapping=mapping)
    assert first == Question(
        id="7",
        source="mapped",
        stem="Welche?",
        options=lettered(["x", "y", "z"]),
        key="C",
        labels={"fach": "Chirurgie"},
    )
    assert isinstance(second, Question)
    assert (len(second.options), second.key) == (2, "A")


def test_fields_that_are_not_mapped_are_looked_for_by_their_usual_names():
    columns = mapped_columns(Path("q.csv"), {"key": "label"}, ["question", "choices", "label", "rationale"])
    assert (columns.stem, columns.options, columns.key, columns.explanation) == (
        "question",
        ("choices",),
        "label",
        "rationale",
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"key": "answr"}, "q.csv has no column answr to map; its columns are question, options"),
        ({}, r"no column of q\.csv holds the key: map one"),
        ({"answer": "question"}, "a question has no field answer: a mapping may name stem, options, key"),
        ({"id": ","}, r"',' cannot be mapped to id: must name one column of q\.csv"),
        ({"stem": "question,options"}, r"'question,options' cannot be mapped to stem: must name one column of q\.csv"),
    ],
)
def test_a_mapping_that_cannot_be_is_the_users_to_mend(mapping: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        mapped_columns(Path("q.csv"), mapping, ["question", "options"])


def test_the_config_offers_the_formats_that_can_be_read():
    assert QuestionsConfig.model_fields["format"].annotation == Format
