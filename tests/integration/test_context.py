"""Prompts, attempts and corrections against the context, with the clinic's own student and questions."""

import pytest

from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.clinic.exam import make_questions
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config import Config
from medcritical_ray.context import check_context, longest_prompt_tokens, model_positions
from medcritical_ray.errors import UserError

STUDENT = base_student_dir()


def config_of(max_model_len: int, attempt: int = 60, correction: int = 40) -> Config:
    return Config.model_validate(
        {
            "engines": {"max_model_len": max_model_len},
            "generate": {"sampling": {"max_tokens": attempt}},
            "correct": {"sampling": {"max_tokens": correction}},
        }
    )


def test_a_context_that_just_holds_prompt_attempt_and_correction_is_long_enough():
    check_context(config_of(256), STUDENT, 156, corrected=True)
    check_context(config_of(216), STUDENT, 156, corrected=False)


def test_a_context_too_short_names_the_length_to_set():
    with pytest.raises(UserError, match=r"engines.max_model_len = 256: must be at least 257, .* has 157 tokens"):
        check_context(config_of(256), STUDENT, 157, corrected=True)


def test_a_context_longer_than_the_model_was_made_for_is_refused():
    positions = model_positions(STUDENT)
    assert positions is not None
    with pytest.raises(UserError, match=rf"engines.max_model_len = {positions + 1}: must be at most {positions}, "):
        check_context(config_of(positions + 1), STUDENT, 10, corrected=True)


def test_the_longest_prompt_is_that_of_a_correction_if_there_are_any():
    questions = list(make_questions(load_world(), "dev", 20, seed=0, difficulty=3))
    solved = longest_prompt_tokens(STUDENT, questions, corrected=False)
    assert 0 < solved < longest_prompt_tokens(STUDENT, questions, corrected=True)
