"""What serving decides without an engine: who may ask, what for, and what becomes of it."""

import pickle
from pathlib import Path

import pytest

from medcritical_ray.config import ServeConfig
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import new_record
from medcritical_ray.run.state import adopted_version
from medcritical_ray.serving.keys import is_authorized, read_keys
from medcritical_ray.serving.limits import check_limits, num_prompts
from medcritical_ray.serving.model_ids import ModelId, read_model_id
from medcritical_ray.serving.refusals import (
    Refused,
    bad_value,
    overloaded,
    timed_out,
    too_long,
    unknown_model,
    wrong_key,
)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("first-key\n\n  second-key  \n")
    return file


@pytest.mark.parametrize("header", ["Bearer first-key", "bearer second-key", "Bearer  first-key "])
def test_each_key_of_the_file_opens(header: str, key_file: Path):
    assert is_authorized(header, read_keys(key_file))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "first-key", "Basic first-key", "Bearer first-key2"])
def test_nothing_else_opens(header: str, key_file: Path):
    assert not is_authorized(header, read_keys(key_file))


def test_a_file_without_keys_is_refused(tmp_path: Path):
    (tmp_path / "keys").write_text("\n \n")
    with pytest.raises(UserError, match="keys: holds no key"):
        read_keys(tmp_path / "keys")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="keys: cannot be read: No such file or directory"):
        read_keys(tmp_path / "keys")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("v0003", ModelId(3, self_correct=False)),
        ("v0003:self-correct", ModelId(3, self_correct=True)),
        ("v12345", ModelId(12345, self_correct=False)),
        ("latest", ModelId(None, self_correct=False)),
        ("latest:self-correct", ModelId(None, self_correct=True)),
    ],
)
def test_a_model_is_a_version_or_the_latest_perhaps_corrected(name: str, model: ModelId):
    assert read_model_id(name) == model


@pytest.mark.parametrize("name", ["", "v3", "v00003", "V0003", "v0003 ", "latest:", "v0003:self", "gpt-4o", "../v0003"])
def test_no_other_name_is_a_model(name: str):
    assert read_model_id(name) is None


def test_the_latest_is_what_the_last_finished_iteration_adopted(tmp_path: Path):
    run = RunDirectory.create(tmp_path / "run", new_record({}), resume_command="")
    adopted = [adopted_version(run)]
    for iteration, version in enumerate([0, 1, 1, 3]):
        run.finish_iteration(iteration, {"adopted_version": version})
        adopted.append(adopted_version(run))
    assert adopted == [0, 0, 1, 1, 3]


@pytest.mark.parametrize(
    ("prompt", "number"), [("a", 1), (["a", "b"], 2), ([5, 6, 7], 1), ([[5, 6], [7]], 2), ([], 1), (None, 1)]
)
def test_prompts_are_texts_or_their_tokens(prompt: str | list[str] | list[int] | list[list[int]] | None, number: int):
    assert num_prompts(prompt) == number


def test_a_request_may_ask_for_as_much_as_the_config_says():
    check_limits(ServeConfig(max_tokens=8, max_texts=2), param="max_tokens", max_tokens=8, num_texts=2)
    check_limits(ServeConfig(max_tokens=8, max_texts=2), param="max_tokens", max_tokens=None, num_texts=1)


def test_more_tokens_are_refused_by_the_name_of_the_field():
    with pytest.raises(Refused) as caught:
        check_limits(ServeConfig(max_tokens=8), param="max_completion_tokens", max_tokens=9, num_texts=1)
    assert caught.value.refusal == bad_value("max_completion_tokens", "9 is too much: at most 8 (serve.max_tokens)")


def test_more_texts_are_refused():
    with pytest.raises(Refused) as caught:
        check_limits(ServeConfig(max_texts=2), param="max_tokens", max_tokens=8, num_texts=3)
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, "n")


def test_an_unknown_model_is_told_of_those_whose_answers_are_corrected_where_they_are_listed():
    message = unknown_model("gpt", ["v0000", "latest"], has_corrected=True).message
    assert message.endswith("/v1/models lists v0000, latest, and each of these with :self-correct behind it.")


def test_a_refusal_has_the_form_of_the_api():
    assert unknown_model("gpt", ["v0000", "latest"]).body() == {
        "error": {
            "message": "The model 'gpt' does not exist: /v1/models lists v0000, latest.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("answer_tokens", "message"),
    [
        (0, "messages: has 40 tokens, but the context has 32 tokens (engines.max_model_len): shorten it."),
        (
            8,
            "messages: has 40 tokens, but the context has 32 tokens (engines.max_model_len), and 8 of them are asked "
            "for the answer: shorten it, or lower max_tokens.",
        ),
    ],
)
def test_what_is_too_long_is_told_with_its_length_and_the_limit(answer_tokens: int, message: str):
    assert too_long("messages", "40 tokens", answer_tokens=answer_tokens, max_model_len=32).message == message


def test_who_is_refused_for_now_is_told_when_to_come_back():
    assert (overloaded(4).status, overloaded(4).headers()) == (503, {"Retry-After": "1"})
    assert (timed_out(2.5).status, timed_out(2.5).headers()) == (504, {})
    assert (wrong_key().status, wrong_key().headers()) == (401, {"WWW-Authenticate": "Bearer"})


def test_a_refusal_survives_pickling():
    assert pickle.loads(pickle.dumps(Refused(wrong_key()))).refusal == wrong_key()
