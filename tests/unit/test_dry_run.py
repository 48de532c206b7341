"""What a dry run says, against a cluster that is made up here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.cli import main
from medcritical_ray.errors import WaitTimeout
from medcritical_ray.planning.fit import ClusterResources
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered

LAPTOP = ClusterResources(num_cpus=2, num_gpus=0, memory_gib=64, disk_gib=500)
ON_CPUS = ("engines.num_gpus=0", "trainers.num_gpus=0", "engines.num_cpus=0.5", "trainers.num_cpus=0.5")


def dry_run(monkeypatch: pytest.MonkeyPatch, *overrides: str, unreachable: bool = False) -> int:
    """The exit code of a dry run of ten questions of a file in this directory."""

    @contextmanager
    def connected(*args: object) -> Iterator[ClusterResources]:
        if unreachable:
            raise WaitTimeout("nobody answers")
        yield LAPTOP

    monkeypatch.setattr("jobs.parts.connecting.connected", connected)
    options = lettered(["yes", "no"])
    said = "It is. A对, B错."
    asked = [
        Question(id=f"q{n}", source="s", stem=f"Is it {n}?", options=options, key="A", explanation=said)
        for n in range(10)
    ]
    write_questions("q.jsonl", asked)
    Path("my.toml").write_text("""
        questions = { kind = "file", path = "q.jsonl", num_train = 4, num_dev = 3, num_test = 3 }
        student.fresh = {}
        teacher = { kind = "explanations", num_questions = 4 }
    """)
    return main(["self-play", "--config", "my.toml", "--dry-run", *(f"--set={each}" for each in overrides)])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_verdict_of_a_dry_run_stands_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert dry_run(monkeypatch, *ON_CPUS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# The config, in full."
    assert lines[-2:] == [
        "stems in two splits: train and dev 0, train and test 0, dev and test 0",
        "the plan fits the cluster",
    ]


def test_what_is_wrong_with_questions_and_what_the_cluster_lacks_are_told_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert dry_run(monkeypatch, "questions.num_train=24000", "engines.num_cpus=0.5", "trainers.num_cpus=0.5") == 2
    wrong, gpus = capsys.readouterr().out.splitlines()[-2:]
    assert wrong.startswith("wrong: questions.num_train = 24000, num_dev = 3 and num_test = 3 need 24,006 questions")
    assert gpus.startswith("does not fit: GPUs: 2 needed, 0 there")


def test_a_teacher_without_a_word_is_wrong_and_the_cluster_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Path("templates.jsonl").touch()
    assert dry_run(monkeypatch, *ON_CPUS, "teacher.kind=distilled", "teacher.path=.") == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("wrong: ")


def test_what_was_found_is_told_though_no_cluster_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert dry_run(monkeypatch, "questions.num_train=24000", unreachable=True) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("wrong: questions.num_train = 24000")
    assert printed.err == "error: nobody answers\n"
