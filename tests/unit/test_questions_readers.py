import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.questions import BadRow, read_questions, write_questions
from medcritical_ray.records import Option, Question, lettered

DATA = Path(__file__).parents[1] / "data"
SAMPLES = ("cmexam_sample.csv", "cmexam_sample_line_breaks.csv")

MEASLES = Question(
    id="q1",
    source="ward",
    stem="Fever, red eyes and white spots inside the cheeks?",
    options=lettered(["measles", "mumps"]),
    key="A",
    explanation="Koplik's spots mean measles.",
    labels={"discipline": "paediatrics"},
)
VITAMINS = Question(id="q2", source="ward", stem="哪些是脂溶性维生素？", options=lettered(["A", "B1", "D"]), key="AC")


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def native_row(**changes: object) -> dict[str, object]:
    options = [{"letter": "A", "text": "measles"}, {"letter": "B", "text": "mumps"}]
    return {"id": "q1", "stem": "Which?", "options": options, "key": "A"} | changes


def reasons_of(path: Path) -> list[str]:
    """For every row its reason, or "loaded"."""
    return [row.reason if isinstance(row, BadRow) else "loaded" for row in read_questions(path)]


def sample(name: str) -> dict[str, Question]:
    return {row.id: row for row in read_questions(DATA / name) if isinstance(row, Question)}


@pytest.mark.parametrize("name", SAMPLES)
def test_cmexam_options_are_read_with_either_separator(name: str):
    pulse = next(read_questions(DATA / name))
    assert pulse == Question(
        id=f"{Path(name).stem}-1",
        source="cmexam",
        stem="成人安静状态下，正常脉搏的范围是每分钟",
        options=lettered(["40～50次", "60～100次", "110～130次", "140～160次", "170～190次"]),
        key="B",
        explanation="成人正常脉搏为每分钟60～100次（B对）。低于60次（A错）为脉搏缓慢，高于100次（C错、D错、E错）为脉搏增快。",
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_cmexam_oddities_are_kept_and_the_row_without_key_is_set_aside(name: str):
    rows = list(read_questions(DATA / name))
    assert rows[6] == BadRow(file=str(DATA / name), row=7, reason="no key")
    questions = [row for row in rows if isinstance(row, Question)]
    letters = ["".join(option.letter for option in question.options) for question in questions]
    assert letters == ["ABCDE", "ABCD", "ABCDE", "BCDE", "ABCDE", "ABCDE", "ABDE"]
    assert [question.key for question in questions] == ["B", "A", "ABD", "B", "A", "A", "A"]
    assert [question.explanation is None for question in questions] == [False] * 5 + [True] * 2
    assert [option.text for option in questions[4].options].count("鼻窦炎") == 2
    assert questions[5].stem == '护士说"请深呼吸", 此时最适合听诊的是'
    assert questions[5].options[0] == Option("A", "肺部呼吸音")


@pytest.mark.parametrize("name", SAMPLES)
def test_cmexam_explanations_have_real_line_breaks(name: str):
    explanation = sample(name)[f"{Path(name).stem}-3"].explanation
    assert explanation == "脂溶性维生素包括A、D、E、K（A对、B对、D对）。\n维生素C（C错）和维生素B1（E错）为水溶性。"


def test_cmexam_annotations_become_labels(tmp_path: Path):
    path = tmp_path / "test.csv"
    path.write_text(
        "Question,Options,Answer,Explanation,Disease Group,Difficulty level,Note\n题,A 一\\nB 二,B,nan,nan,3,x\n",
        encoding="utf-8",
    )
    (question,) = read_questions(path)
    assert isinstance(question, Question)
    assert question.labels == {"Difficulty level": "3"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("题,A 一\\nB 二,C,解", "key not among the options"),
        ("题,A 一\\nB 二,,解", "no key"),
        (" ,A 一\\nB 二,A,解", "no stem"),
        ("题,A 一,A,解", "too few options"),
        ("题,,A,解", "no options"),
        ("题,A 一\\n二,A,解", "option letter not A to J"),
        ("题,A 一\\nK 二,A,解", "option letter not A to J"),
        ("题,A 一\\nA 二,A,解", "option letter used twice"),
        ("题,A 一\\nB,A,解", "option without text"),
        ("题,A 一\\nB 二,A", "unreadable row"),
        ("题,A 一\\nB 二,A,解,解", "unreadable row"),
        ('题,"A 一"\\nB 二,A,解', "unreadable row"),
    ],
)
def test_a_bad_csv_row_has_its_reason_and_the_others_are_loaded(row: str, reason: str, tmp_path: Path):
    good = "题,A 一\\nB 二,A,解"
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(["Question,Options,Answer,Explanation", good, row, "", good]), encoding="utf-8")
    assert reasons_of(path) == ["loaded", reason, "loaded"]


def test_a_quote_that_is_never_closed_swallows_no_other_row(tmp_path: Path):
    path = tmp_path / "quote.csv"
    rows = ["题,A 一\\nB 二,A,解"] * 200
    rows[3] = '题,A 一\\nB 二,A,"解'
    path.write_text("\n".join(["Question,Options,Answer,Explanation", *rows]), encoding="utf-8")
    assert reasons_of(path) == ["loaded"] * 3 + ["unreadable row"] + ["loaded"] * 196


def test_more_than_ten_options_are_refused(tmp_path: Path):
    options = [{"letter": letter, "text": "x"} for letter in "ABCDEFGHIJK"]
    path = write_jsonl(tmp_path / "q.jsonl", native_row(options=options), native_row(options=options[:10]))
    assert reasons_of(path) == ["too many options", "loaded"]


def test_medqa_is_read():
    ankle, _, chest = read_questions(DATA / "medqa_sample.jsonl")
    assert isinstance(ankle, Question)
    assert isinstance(chest, Question)
    assert (ankle.id, ankle.source, ankle.key) == ("medqa_sample-1", "medqa", "B")
    assert ankle.stem.startswith("A 30-year-old runner has pain")
    assert ankle.options[1] == Option("B", "Anterior talofibular ligament")
    assert ankle.labels == {"meta_info": "step1"}
    assert [option.letter for option in chest.options] == ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "Which?", "options": {"A": "x"', "unreadable row"),
        ("[1, 2]", "unreadable row"),
        ("[" * 100_000, "unreadable row"),
        ('{"question": "Which?", "options": {"A": ["x"], "B": "y"}, "answer_idx": "A"}', "options of no known form"),
        ('{"question": "Which?", "options": 3, "answer_idx": "A"}', "options of no known form"),
        ('{"question": ["Which?"], "options": {"A": "x", "B": "y"}, "answer_idx": "A"}', "stem of no known form"),
        ('{"question": "Which?", "options": {"A": "x", "B": "y"}, "answer_idx": {}}', "key of no known form"),
        ('{"question": "Which?", "answer_idx": "A"}', "no options"),
        ('{"question": "Which?", "options": {"A": "x", "A": "y"}, "answer_idx": "A"}', "unreadable row"),
        ('{"question": "\\ud800?", "options": {"A": "x", "B": "y"}, "answer_idx": "A"}', "unreadable row"),
        ('{"question": "Which?", "options": {"A": "x", "B": "y"}}', "no key"),
        ('{"question": null, "options": {"A": "x", "B": "y"}, "answer_idx": "A"}', "no stem"),
    ],
)
def test_a_bad_json_line_has_its_reason_and_the_others_are_loaded(line: str, reason: str, tmp_path: Path):
    good = '{"question": "Which?", "options": {"A": "x", "B": "y"}, "answer_idx": "A"}'
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([line, good, "", good]), encoding="utf-8")
    assert reasons_of(path) == [reason, "loaded", "loaded"]


@pytest.mark.parametrize("name", ["questions.parquet", "questions.jsonl"])
def test_questions_written_are_read_back_the_same(name: str, tmp_path: Path):
    write_questions(tmp_path / name, [MEASLES, VITAMINS])
    assert list(read_questions(tmp_path / name)) == [MEASLES, VITAMINS]


@pytest.mark.parametrize("name", ["questions.parquet", "questions.jsonl"])
def test_more_questions_than_one_batch_are_written_and_read_in_order(name: str, tmp_path: Path):
    questions = [
        Question(id=f"q{i}", source="ward", stem=f"{i}?", options=MEASLES.options, key="A") for i in range(2500)
    ]
    write_questions(tmp_path / name, iter(questions))
    assert list(read_questions(tmp_path / name)) == questions


def test_questions_are_written_whole_or_not_at_all(tmp_path: Path):
    def broken():
        yield MEASLES
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_questions(tmp_path / "questions.parquet", broken())
    assert list(tmp_path.iterdir()) == []


def test_questions_are_written_to_no_other_kind_of_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"should end with \.parquet or \.jsonl"):
        write_questions(tmp_path / "questions.csv", [MEASLES])


def test_a_native_row_needs_neither_id_nor_source(tmp_path: Path):
    row = {key: value for key, value in native_row(key="BA").items() if key != "id"}
    (question,) = read_questions(write_jsonl(tmp_path / "ward.jsonl", row))
    assert isinstance(question, Question)
    assert (question.id, question.source, question.key) == ("ward-1", "native", "AB")


def test_the_second_question_of_an_id_is_set_aside(tmp_path: Path):
    path = write_jsonl(tmp_path / "q.jsonl", native_row(), native_row(stem="Other?"), native_row(id="q2"))
    assert reasons_of(path) == ["loaded", "duplicate id", "loaded"]


def test_a_parquet_row_with_nulls_is_set_aside(tmp_path: Path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist([native_row(), native_row(id="q2", key=None)]), path)
    assert reasons_of(path) == ["loaded", "no key"]


def test_an_option_is_one_line(tmp_path: Path):
    options = [{"letter": "A", "text": "measles,\n  mild"}, {"letter": "B", "text": "mumps"}]
    (question,) = read_questions(write_jsonl(tmp_path / "q.jsonl", native_row(options=options)))
    assert isinstance(question, Question)
    assert question.options[0] == Option("A", "measles, mild")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path):
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (DATA / "cmexam_sample.csv").read_bytes())
    assert reasons_of(path).count("loaded") == 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "题目,选项\n".encode("gbk"), "whose columns are 题目, 选项: name its format, or map its columns"),
        ("q.jsonl", b"\xff\xfe\x00\x01", "is neither UTF-8 nor GB18030 text: save it as UTF-8"),
        ("q.csv", b"id,stem\n1,x\n", "whose columns are id, stem: name its format, or map its columns"),
        ("q.csv", b'"id"x,stem\n1,x\n', "has broken quoting in its header"),
        ("q.csv", b"stem,key,options,key,,\n", "has two columns called key: rename one, since a row can keep but one"),
        (
            "q.csv",
            b"a" * 99 + b",b" + b"," * 39,
            rf"whose columns are {'a' * 40}…, b, [ ,]*and 11 more: name",
        ),
        ("q.jsonl", b'{"text": "x"}\n', "cannot tell the format of"),
        ("q.txt", b"x", r"should end with \.csv, \.jsonl, \.json, \.parquet"),
        ("q.parquet", b"", "is no readable parquet file"),
        ("q.parquet", b"PAR1 and then nothing of the kind", "is no readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_user_s_error(name: str, content: bytes, message: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_questions(path))
    assert str(path) in str(caught.value)


def test_a_parquet_file_with_other_columns_is_the_user_s_error(tmp_path: Path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "q.parquet")
    with pytest.raises(UserError, match="whose columns are text: name its format"):
        list(read_questions(tmp_path / "q.parquet"))


def test_a_file_that_lacks_columns_of_the_format_named_says_which(tmp_path: Path):
    pq.write_table(pa.table({"stem": ["x"]}), tmp_path / "q.parquet")
    with pytest.raises(UserError, match=r"has no column key, options \(native\); its columns are stem"):
        list(read_questions(tmp_path / "q.parquet", "native"))


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl", "q.parquet"])
def test_a_missing_file_and_a_directory_are_the_user_s_error(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        list(read_questions(tmp_path / name))
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"q\.\w+ is a directory: must be a file of questions$"):
        list(read_questions(tmp_path / name))


def test_labels_may_be_pairs_as_parquet_gives_them(tmp_path: Path):
    path = write_jsonl(tmp_path / "q.jsonl", native_row(labels=[["ask", "dose"], ["year", "1"]]))
    (question,) = read_questions(path)
    assert isinstance(question, Question)
    assert question.labels == {"ask": "dose", "year": "1"}
