import json
from pathlib import Path

import pytest

from jobs.cli import main

DATA = Path(__file__).parents[1] / "data"


def test_the_counts_are_printed_as_json(capsys: pytest.CaptureFixture[str]):
    assert main(["questions", str(DATA / "cmexam_sample.csv"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"rows": 8, "loaded": 7, "quarantined": 1, "reasons": {"no key": 1}}


def test_the_table_names_the_counts_and_the_first_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad [red].csv"
    rows = ["题,A 一\\nB 二,A", *["题,A 一\\nB 二,"] * 11]
    path.write_text("\n".join(["Question,Options,Answer", *rows]), encoding="utf-8")
    assert main(["questions", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}\n")
    assert f"{path}, row 11: no key\nand 1 more\n" in printed
    assert "row 12:" not in printed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", None, "does not exist"),
        ("q.csv", b"", "has no rows"),
        ("q.jsonl", b"\n", "has no rows"),
        ("q.csv", b"Question,Options,Answer\n", "has no rows"),
        ("q.csv", b"Question,Options,Answer\nWhich?,A x\\nB y,nan\n", "has no usable question among its 1 rows"),
        ("q.csv", b"\x89PNG\r\n\x1a\n", "is neither UTF-8 nor GB18030 text"),
    ],
)
def test_a_file_of_no_use_is_one_line_and_exit_code_2(
    name: str, content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["questions", str(path), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {path} {message}")
    assert printed.err.count("\n") == 1


def test_columns_may_be_mapped_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"q": "Which?", "options": ["x", "y"], "right": 1}\n{"q": "Which?", "options": ["x", "y"], "right": 0}\n'
    )
    assert main(["questions", str(path), "--map", "stem=q", "--map", "key=right", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loaded"] == 2


def test_a_mapping_to_a_column_that_is_missing_names_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "q.jsonl"
    path.write_text('{"q": "Which?", "options": ["x", "y"], "right": 1}\n')
    assert main(["questions", str(path), "--map", "stem=q", "--map", "key=answr", "--json"]) == 2
    assert capsys.readouterr().err == f"error: {path} has no column answr to map; its columns are q, options, right\n"


def test_options_in_columns_of_their_own_may_be_mapped_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "q.csv").write_text("stem,a,b,key\nWhich?,x,y,B\n")
    assert main(["questions", str(tmp_path / "q.csv"), "--map", "options=a", "--map", "options=b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loaded"] == 1


def test_stems_that_another_file_has_too_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, stems in {"train": ["Fever?", "Cough?"], "test": ["Pain?", "fever"]}.items():
        rows = [{"stem": stem, "options": ["x", "y"], "key": "A"} for stem in stems]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    command = ["questions", str(train), "--format", "mapped", "--against", str(test)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == [
        f"different stems in both {train} and {test}: 1 (a stem of several questions of a file counts once)",
        "  train-1 = test-2: Fever?",
    ]
    assert main([*command, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["rows"] == 2
    assert counts["shared_stems"] == {
        f"{train} and {test}": {"num_stems": 1, "examples": [["train-1", "test-2", "Fever?"]]}
    }


def test_what_another_file_sets_aside_is_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = tmp_path / "other.csv"
    other.write_text("Question,Options,Answer\n题,A 一\\nB 二,A\n病,A 一\\nB 二,\n", encoding="utf-8")
    command = ["questions", str(DATA / "cmexam_sample.csv"), "--against", str(other)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["against"] == {
        str(other): {"rows": 2, "loaded": 1, "quarantined": 1, "reasons": {"no key": 1}}
    }
    assert main(command) == 0
    assert f"\n{other}\n" in capsys.readouterr().out


def test_a_file_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "same.csv").symlink_to(DATA / "cmexam_sample.csv")
    assert main(["questions", str(DATA / "cmexam_sample.csv"), "--against", str(tmp_path / "same.csv")]) == 2
    assert capsys.readouterr().err == (
        f"error: --against {tmp_path / 'same.csv'}: is compared already: name each file once\n"
    )


def test_a_file_to_compare_with_must_hold_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["questions", str(DATA / "cmexam_sample.csv"), "--against", str(tmp_path / "gone.csv")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'gone.csv'} does not exist\n"


def test_what_a_file_was_taken_for_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "own.csv"
    path.write_text("q,A,B,right,ward\n您好吗？,好,不好,1,三\nWhich is it?,this,that,0,\n", encoding="gb18030")
    mapping = [f"--map={each}" for each in ("stem=q", "options=A,B", "key=right", "labels=ward")]
    assert main(["questions", str(path), *mapping]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "read as mapped in GB18030; Chinese (1), English (1); labels: ward; keys that are numbers count from 0"
    )
    assert main(["questions", str(DATA / "cmexam_sample.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("read as cmexam in UTF-8; Chinese (7); labels: ")


def test_options_in_columns_of_their_own_are_mapped_as_the_refusal_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "own.csv"
    path.write_text("question,A,B,answer\nWhich is it?,this,that,A\n")
    assert main(["questions", str(path), "--map", "key=answer"]) == 2
    assert "or one for each option (--map options=A,B,C,D)" in capsys.readouterr().err
