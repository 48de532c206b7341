"""Templates on disk: what was written is read back, whatever characters a model used."""

from pathlib import Path

import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.questions import stem_hash
from medcritical_ray.records import Question, lettered
from medcritical_ray.teaching.distilled import Distilled, templates_of, write_distilled


def question(question_id: str, stem: str) -> Question:
    return Question(id=question_id, source="s", stem=stem, options=lettered(["rest", "water"]), key="A")


def distilled(question_id: str, template: str | None, reason: str | None = None, stem: str = "Which?") -> Distilled:
    return Distilled(question_id=question_id, stem_hash=stem_hash(stem), template=template, reason=reason, num_asked=1)


@pytest.mark.parametrize("blank", ["\u2028", "\u0085", "\x0c", "\r", "\n"])
def test_templates_are_read_back_whatever_ends_lines_in_them(tmp_path: Path, blank: str):
    template = f"Step 1: rest{blank}helps.\nAnswer: rest (A)"
    write_distilled(tmp_path, [distilled("one", template), distilled("two", None, "budget")])
    assert templates_of([question("one", "Which?"), question("two", "Which?")], tmp_path) == {"one": template}


def test_a_directory_in_which_no_template_counts_is_refused(tmp_path: Path):
    write_distilled(tmp_path, [distilled("two", None, "budget")])
    with pytest.raises(UserError):
        templates_of([], tmp_path)


def test_a_template_is_its_question_s_alone_whoever_else_has_its_id(tmp_path: Path):
    write_distilled(tmp_path, [distilled("val-1", "one", stem="Which?"), distilled("val-2", "two", stem="What?")])
    taught = [question("val-1", "which"), question("val-2", "Of a test that has the same file's name?")]
    assert templates_of(taught, tmp_path) == {"val-1": "one"}


def test_templates_of_other_questions_are_not_taught(tmp_path: Path):
    write_distilled(tmp_path, [distilled("train-1", "one"), distilled("test-1", "of the test")])
    assert templates_of([question("train-1", "Which?")], tmp_path) == {"train-1": "one"}


def test_templates_that_somebody_else_wrote_are_taken_by_their_ids(tmp_path: Path):
    (tmp_path / "templates.jsonl").write_text('{"question_id": "q1", "template": "one"}\n')
    assert templates_of([question("q1", "Which?")], tmp_path) == {"q1": "one"}
