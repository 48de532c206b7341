"""Distillation against a real server: vLLM's own, with the clinic's student as the large model."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import main
from medcritical_ray.clinic.student import base_student_dir

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NUM_QUESTIONS = 40
PATIENCE_S = 240


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a running server. It takes the tokenizer from a directory without a model's config, beside which
    transformers would take it for another."""
    student, tokenizer = base_student_dir(), tmp_path / "tokenizer"
    shutil.copytree(student, tokenizer, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    (tmp_path / "template.jinja").write_text("{{ messages[0].content }}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": student,
        "--served-model-name": "big",
        "--tokenizer": tokenizer,
        "--chat-template": tmp_path / "template.jinja",
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": "float32",
        "--max-model-len": 320,
        "--kv-cache-memory-bytes": 2**28,
    }
    words = [str(word) for option in options.items() for word in option]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--enforce-eager"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        await_health(process, f"http://127.0.0.1:{port}/health", tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def await_health(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"the server did not answer in {PATIENCE_S} s: {log.read_text()[-3000:]}")


@pytest.mark.timeout(420)
def test_a_served_model_writes_templates_that_count(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
        base_url = "{server}"
        model = "big"
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
