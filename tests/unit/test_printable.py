"""What a terminal is shown of texts that nobody means well with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import NASTY, command

from jobs.parts.terminal import wide_console
from medcritical_ray.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("\x9b2J", r"\u009b2J"),
        ("right\rwrong", r"right\rwrong"),
        ("a\x00b\x07", r"a\u0000b\u0007"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("a\u2028b\x85c", r"a\u2028b\u0085c"),
        ("\udcff", r"\udcff"),
        ("a\tb\nc", "a\tb\nc"),
        ("发热 37 °C, fièvre, הבחילה, 👩\u200d⚕️", "发热 37 °C, fièvre, הבחילה, 👩\u200d⚕️"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped_and_nothing_else(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_json_that_is_made_printable_says_the_same(text: str):
    assert json.loads(printable(json.dumps([text], ensure_ascii=False))) == [text]


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_a_console_shows_a_text_as_it_stands(text: str, capsys: pytest.CaptureFixture[str]):
    wide_console().print(text, soft_wrap=True)
    assert capsys.readouterr().out == f"{printable(text)}\n"


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_stems_and_ids_are_shown_as_they_stand(text: str, tmp_path: Path):
    row = {"id": text, "stem": f"{text} which?", "options": ["rest", "water"], "key": "A"}
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
    for words in ([], ["--json"]):
        told = command("questions", tmp_path / "a.jsonl", "--against", tmp_path / "b.jsonl", *words)
        assert printable(told.out + told.err) == told.out + told.err
        assert (told.exit_code, told.err == "") in [(0, True), (2, False)]


def test_what_an_encoding_cannot_say_is_escaped(tmp_path: Path):
    file = tmp_path / "发热-\x1b[2J.csv"
    file.write_text("question,options,answer_idx\nWhich?,A x\\nB y,A\n")
    words = [sys.executable, "-m", "jobs.cli", "questions", file]
    for encoding, name in (("utf-8", "发热"), ("ascii", r"\u53d1\u70ed")):
        done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=True)
        assert rf"/{name}-\u001b[2J.csv".encode() in done.stdout


def test_a_name_that_is_no_text_is_to_be_changed():
    assert command("questions", "exam-\udcff.csv") == (2, "", "error: exam-\\udcff.csv: is no UTF-8: rename it\n")
