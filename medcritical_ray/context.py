"""Whether a prompt, an attempt and its correction fit the context: known before anything starts."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Question, UnkeyedQuestion

_AT_A_TIME = 1000


def model_positions(model_dir: Path) -> int | None:
    """The positions that a model was made for; None if its config does not say."""
    config: dict[str, Any] = read_json(model_dir / "config.json")
    positions = config.get("text_config", config).get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


def longest_prompt_tokens(model_dir: Path, questions: Iterable[Question], *, corrected: bool) -> int:
    """Tokens of the longest prompt, that of a correction without its attempt if answers are corrected, too."""
    from medcritical_ray.chat import load_tokenizer, prompt_token_ids

    tokenizer = load_tokenizer(model_dir)
    prompts = (prompt for question in questions for prompt in _prompts(question.unkeyed(), corrected=corrected))
    longest = 0
    while some := list(islice(prompts, _AT_A_TIME)):
        longest = max(longest, *map(len, prompt_token_ids(tokenizer, some)))
    return longest


def check_context(config: Config, model_dir: Path, num_prompt_tokens: int, *, corrected: bool) -> None:
    """Raises UserError if the longest prompt, and what is to be written after it, do not fit the engines' context, or
    if the engines' context is more than the model was made for."""
    engines, positions = config.engines, model_positions(model_dir)
    if positions is not None and engines.max_model_len > positions:
        raise UserError(
            f"engines.max_model_len = {engines.max_model_len}: must be at most {positions}, the positions that "
            f"{model_dir} was made for"
        )
    num_new_tokens = config.generate.sampling.max_tokens
    if corrected:
        num_new_tokens += config.correct.sampling.max_tokens
    needed = num_prompt_tokens + num_new_tokens
    if needed > engines.max_model_len:
        raise UserError(
            f"engines.max_model_len = {engines.max_model_len}: must be at least {needed}, since the longest prompt has "
            f"{num_prompt_tokens} tokens and {num_new_tokens} may follow: raise it, or lower sampling.max_tokens"
        )


def _prompts(question: UnkeyedQuestion, *, corrected: bool) -> list[str]:
    if not corrected:
        return [solve_prompt(question)]
    return [correction_prompt(question, "", "repair"), correction_prompt(question, "", "check")]
