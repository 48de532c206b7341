"""Configs and overrides of any content: a config that can be written and read again, or one line for the user."""

from typing import Any

import pytest
import tomli_w
from hostile import NASTY, command, file_of, is_one_line_error, plain, texts
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.config import Config
from medcritical_ray.config_files import _known_keys, dump_config, load_config
from medcritical_ray.errors import UserError

keys = st.sampled_from(_known_keys(Config))
names = keys | texts.map(plain)
values = st.one_of(
    texts.map(plain),
    st.booleans(),
    st.sampled_from([0, 1, 2, 7, 0.5, -1, 1e300, 5e-324, 2**62, float("inf"), float("nan")]),
    st.sampled_from(
        ["clinic", "file", "latest", "teacher", "lora", "bfloat16", "s3://a:b@c", "file:///a%00b", "[", "//["]
    ),
    st.lists(texts.map(plain), max_size=3),
    st.dictionaries(texts.map(plain), texts.map(plain) | st.integers(0, 3), max_size=3),
)
words = st.builds("=".join, st.tuples(names, st.builds(str, values).map(plain))) | texts.map(plain)


def loaded(content: str, overrides: list[str]) -> Config | None:
    """None if it is refused."""
    with file_of(content.encode(), "run.toml") as path:
        try:
            return load_config(path, overrides)
        except UserError:
            return None


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Tables by dotted keys; a key below a value is left out."""
    document: dict[str, Any] = {}
    for key, value in flat.items():
        *tables, name = key.split(".")
        place: Any = document
        for table in tables:
            place = place.setdefault(table, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[name] = value
    return document


@given(st.binary(max_size=200) | texts.map(plain).map(str.encode))
def test_a_config_of_any_bytes_is_read_or_refused_in_a_line(content: bytes):
    with file_of(content, "run.toml") as path:
        told = command("distill", "--config", path, "--out", path.parent / "out")
    assert is_one_line_error(told)
    assert str(path) in told.err


@given(st.dictionaries(names, values, max_size=4))
def test_a_config_of_any_values_is_refused_or_can_be_written_and_read_again(flat: dict[str, Any]):
    config = loaded(tomli_w.dumps(nested(flat)), [])
    assert config is None or loaded(dump_config(config), []) == config


@given(st.lists(words, max_size=3))
def test_overrides_of_any_words_are_refused_or_taken(overrides: list[str]):
    config = loaded("", overrides)
    assert config is None or loaded(dump_config(config), []) == config


@given(st.lists(words.filter(lambda word: "endpoint" not in word), min_size=1, max_size=3))
def test_a_command_tells_what_is_wrong_with_its_config_in_a_line(overrides: list[str]):
    with file_of(b"", "run.toml") as path:
        settings = [f"--set={override}" for override in overrides]
        assert is_one_line_error(command("distill", "--config", path, "--out", path.parent / "out", *settings))


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_a_text_in_a_config_is_kept_as_it_is_or_refused_for_its_control_characters(text: str):
    config = loaded(tomli_w.dumps({"student": {"path": plain(text)}}), [])
    has_control = any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert config is None if has_control else config is not None and config.student.path == plain(text)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("run.seed=10000000000000000", "run.seed = 10000000000000000: must be at most 1e+15"),
        ('student.path="a\\u0000b"', r'student.path = "a\u0000b": must hold no control characters'),
        ('questions.map={key="a\\u001bb"}', "questions.map: must hold no control characters"),
        ("engines.num_gpus=0.001", "engines.num_gpus = 0.001: must be 0 or at least 0.01"),
        ("trainers.num_workers=10001", "trainers.num_workers = 10001: must be less than or equal to 10000"),
    ],
)
def test_what_no_machine_and_no_path_can_be_is_refused(override: str, told: str):
    with file_of(b"", "run.toml") as path, pytest.raises(UserError) as caught:
        load_config(path, [override])
    assert str(caught.value) == f"--set: {told}"
