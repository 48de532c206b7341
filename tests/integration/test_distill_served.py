"""Distillation against a real server: vLLM's own, with the clinic's student as the large model."""

import json
from pathlib import Path

import pytest

from jobs.cli import main

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NUM_QUESTIONS = 40


@pytest.mark.timeout(420)
def test_a_served_model_writes_templates_that_count(
    student_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "none needed")
    config = tmp_path / "my.toml"
    config.write_text(
        f"""
        [questions]
        num_train = {NUM_QUESTIONS}
        num_dev = 1
        num_test = 1
        [teacher]
        num_questions = {NUM_QUESTIONS}
        [teacher.endpoint]
        base_url = "{student_server}"
        model = "student"
        explain_form = false
        max_tokens = 110
        max_revisions = 1
        """
    )
    arguments = ["distill", "--config", str(config), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    templates, rejects = (
        [json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]
        for name in ("templates.jsonl", "rejects.jsonl")
    )
    assert len(templates) + len(rejects) == NUM_QUESTIONS
    assert len(templates) >= 5  # guesses among five options, whose text must agree, would be fewer than a fifth
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert ledger["calls"] == sum(row["num_asked"] for row in [*templates, *rejects])
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out" / "ledger.json").read_text()) == ledger
