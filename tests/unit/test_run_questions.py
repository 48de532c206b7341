"""Questions of a run from files: drawn, kept apart, and accounted for."""

import json
from pathlib import Path
from typing import Any

import pytest

from medcritical_ray.config import Config, StudentConfig, TeacherConfig
from medcritical_ray.errors import UserError
from medcritical_ray.files import write_json
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.input_files import check_files, fingerprints
from medcritical_ray.run.questions import prepare_questions, read_contamination, write_prepared
from medcritical_ray.run.record import new_record
from medcritical_ray.teaching.distilled import read_charges
from medcritical_ray.teaching.reviews import Charges


def write(path: Path, *stems: str) -> Path:
    options = lettered(["yes", "no"])
    write_questions(
        path,
        [Question(id=f"{path.stem}-{n}", source="s", stem=s, options=options, key="A") for n, s in enumerate(stems)],
    )
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two of the eight training stems stand in test, one in dev, all in other spelling."""
    return {
        "path": str(write(tmp_path / "train.jsonl", *(f"Case {n}?" for n in range(8)))),
        "dev_path": str(write(tmp_path / "dev.jsonl", "case 0", "Dev 1?", "Dev 2?")),
        "test_path": str(write(tmp_path / "test.jsonl", "CASE 1 ?", "case 2!", "Test 1?", "Test 2?")),
    }


def config_of(files: dict[str, str], **changes: Any) -> Config:
    questions = {"kind": "file", "num_train": 5, "num_dev": 3, "num_test": 4, **files, **changes}
    parts = {"questions": questions, "student": {"fresh": {}}}
    return Config.model_validate({**parts, "teacher": {"kind": "explanations", "num_questions": 1}})


def test_questions_that_stand_in_dev_or_test_are_not_trained_on(files: dict[str, str], tmp_path: Path):
    prepared = prepare_questions(config_of(files))
    assert sorted(question.stem for question in prepared.splits.train) == [f"Case {n}?" for n in range(3, 8)]
    assert (len(prepared.splits.dev), len(prepared.splits.test)) == (3, 4)
    shared = prepared.contamination
    assert shared.lines() == [
        "stems in two splits: train and dev 0, train and test 0, dev and test 0",
        "stems in two files: train and dev 1 (train-0 = dev-0), train and test 2 (train-1 = test-0, train-2 = test-1), "
        "dev and test 0; left out of the former of each two",
    ]
    config = config_of(files)
    with RunDirectory.create(tmp_path / "run", new_record({}), resume_command="") as run:
        write_prepared(prepared, run)
        report = run.result(0, "questions")
        assert json.loads((run.path / "data" / "contamination.json").read_text())["files"]["train and dev"] == {
            "num_stems": 1,
            "examples": [["train-0", "dev-0", "Case 0?"]],
        }
        assert read_contamination(run) == shared
    assert report["shared_stems"] == {"train and dev": 0, "train and test": 0, "dev and test": 0}
    assert report["shared_stems_of_files"] == {"train and dev": 1, "train and test": 2, "dev and test": 0}
    assert len(fingerprints(config)["questions"].split()) == 3


def test_they_are_if_the_config_says_so(files: dict[str, str]):
    prepared = prepare_questions(config_of(files, keep_shared_stems=True, num_train=8))
    assert len(prepared.splits.train) == 8
    splits, in_files = prepared.contamination.lines()
    assert splits.startswith("stems in two splits: train and dev 1 (train-0 = dev-0), train and test 2 (")
    assert in_files.endswith("used all the same: questions.keep_shared_stems")


def test_no_policy_is_chosen_by_questions_of_the_test(files: dict[str, str], tmp_path: Path):
    files["dev_path"] = str(write(tmp_path / "leaky.jsonl", "Dev 1?", "Test 1 ?", "Dev 2?", "Dev 3?"))
    dev = prepare_questions(config_of(files)).splits.dev
    assert sorted(question.stem for question in dev) == ["Dev 1?", "Dev 2?", "Dev 3?"]
    with pytest.raises(UserError, match=r"questions\.dev_path has only 3 questions"):
        prepare_questions(config_of(files, num_dev=4))
    assert len(prepare_questions(config_of(files, num_dev=4, keep_shared_stems=True)).splits.dev) == 4


def test_the_clinic_s_splits_are_compared_too():
    parts = {"questions": {"num_train": 20, "num_dev": 5, "num_test": 5}, "teacher": {"num_questions": 20}}
    prepared = prepare_questions(Config.model_validate(parts))
    assert prepared.contamination.lines() == ["stems in two splits: train and dev 0, train and test 0, dev and test 0"]


def test_too_few_questions_without_shared_ones_are_the_users_to_mend(files: dict[str, str]):
    with pytest.raises(UserError, match=r"questions\.num_train = 6"):
        prepare_questions(config_of(files, num_train=6))
    with pytest.raises(UserError, match=r"questions\.num_test = 5: questions\.test_path has only 4 questions"):
        prepare_questions(config_of(files, num_test=5))


def test_every_split_that_lacks_questions_is_told_at_once_and_none_that_nobody_asked_for(files: dict[str, str]):
    with pytest.raises(UserError) as caught:
        prepare_questions(config_of(files, num_train=24000, num_dev=1000, num_test=6800))
    assert str(caught.value) == (
        "questions.num_train = 24000: there are only 5 questions for it: lower it or give more questions; "
        "questions.num_dev = 1000: questions.dev_path has only 3 questions; "
        "questions.num_test = 6800: questions.test_path has only 4 questions"
    )


def test_where_only_test_has_a_file_dev_comes_from_the_training_file(files: dict[str, str]):
    prepared = prepare_questions(config_of({name: files[name] for name in ("path", "test_path")}, num_dev=1))
    assert len({question.stem for question in [*prepared.splits.train, *prepared.splits.dev]}) == 6


def test_a_file_that_is_missing_is_named_with_its_key(files: dict[str, str]):
    with pytest.raises(UserError, match=r"questions\.test_path = gone\.jsonl: no such file"):
        fingerprints(config_of(files, test_path="gone.jsonl"))


def test_templates_took_what_their_ledger_says_and_nobody_knows_what_without_one(tmp_path: Path):
    (tmp_path / "templates.jsonl").write_text('{"question_id": "q1", "template": "four"}\n')
    assert read_charges(tmp_path) == Charges(written_chars=4, cost=None)
    ledger = Charges(calls=3, prompt_tokens=90, completion_tokens=60, written_chars=300, cost=0.25)
    write_json(tmp_path / "ledger.json", {**ledger.to_dict(), "models": {}})
    assert read_charges(tmp_path) == ledger


def test_a_cost_that_is_not_known_makes_none_of_the_sum():
    assert Charges(calls=1, cost=0.5) + Charges(calls=2, cost=0.25) == Charges(calls=3, cost=0.75)
    assert Charges(calls=1, cost=0.5) + Charges(calls=2, cost=None) == Charges(calls=3, cost=None)


def test_other_templates_make_another_run(files: dict[str, str], tmp_path: Path):
    teacher = {"kind": "distilled", "path": str(tmp_path), "num_questions": 1}
    config = config_of(files).model_copy(update={"teacher": TeacherConfig.model_validate(teacher)})
    with pytest.raises(UserError, match=r"teacher\.path = .*templates\.jsonl: no such file"):
        fingerprints(config)
    (tmp_path / "templates.jsonl").write_text("one")
    before = fingerprints(config)
    (tmp_path / "templates.jsonl").write_text("two")
    assert fingerprints(config)["templates"] != before["templates"]
    assert fingerprints(config)["questions"] == before["questions"]


def test_all_files_and_directories_that_are_not_there_are_told_by_their_keys(files: dict[str, str], tmp_path: Path):
    config = config_of({**files, "path": str(tmp_path / "gone.csv"), "dev_path": str(tmp_path)})
    config = config.model_copy(update={"student": StudentConfig(path=str(tmp_path / "model"))})
    with pytest.raises(UserError) as caught:
        check_files(config)
    assert str(caught.value).split("; ") == [
        f"questions.path = {tmp_path / 'gone.csv'}: no such file",
        f"questions.dev_path = {tmp_path}: is a directory: must be a file of questions",
        f"student.path = {tmp_path / 'model'}: no such directory: must be that of a downloaded Hugging Face model",
    ]
    check_files(config_of(files))
