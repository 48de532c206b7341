"""The tokenizer that vLLM's server reads, so that a policy is asked as in its run, token for token."""

import shutil
from pathlib import Path
from typing import Any

from medcritical_ray.chat import PROBES, load_tokenizer, pin_tokenizer, prompt_template, prompt_token_ids
from medcritical_ray.errors import UserError


def write_tokenizer(model_dir: Path, directory: Path) -> bool:
    """Saves a model's tokenizer so that vLLM reads it as it is, with a chat template that asks as the run does if it
    has none of its own. Returns whether there is a chat template."""
    tokenizer = load_tokenizer(model_dir)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = prompt_template(tokenizer)
    tokenizer.save_pretrained(directory)
    shutil.copyfile(model_dir / "config.json", directory / "config.json")
    pin_tokenizer(directory)
    return tokenizer.chat_template is not None


def check_tokenizer(served: Any, model_dir: Path) -> None:
    """Raises UserError if what vLLM has loaded would give a prompt other tokens than the run gives it."""
    if prompt_token_ids(served, PROBES) != prompt_token_ids(load_tokenizer(model_dir), PROBES):
        raise UserError(f"{model_dir}: vLLM reads its tokenizer differently than the run did: it cannot be served")
