"""What is refused before a run is written."""

from pathlib import Path

import pytest

from jobs.cli import main
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_a_teacher_with_nothing_to_say_is_told_before_anything_starts(
    how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    options = lettered(["yes", "no"])
    questions = [Question(id=f"q{n}", source="s", stem=f"Is it {n}?", options=options, key="A") for n in range(20)]
    write_questions(tmp_path / "q.jsonl", questions)
    (tmp_path / "my.toml").write_text(
        """
        [questions]
        kind = "file"
        path = "q.jsonl"
        num_train = 10
        num_dev = 5
        num_test = 5
        [student.fresh]
        [teacher]
        kind = "explanations"
        num_questions = 10
        [engines]
        num_gpus = 0
        [trainers]
        num_gpus = 0
        """
    )
    monkeypatch.chdir(tmp_path)
    assert main(["self-play", "--config", "my.toml", *how]) == 2
    message = capsys.readouterr().err
    assert "has no template that reaches the key for any of the 10 questions of stage 1" in message
    assert not (tmp_path / "runs").exists()
