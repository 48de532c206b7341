"""From a prompt to the text and tokens that a model sees. Engines and trainers both come here, so that they agree."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medcritical_ray.errors import UserError

_GENERIC_CLASSES = {"TokenizersBackend", "PreTrainedTokenizerFast"}


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face directory, exactly as its tokenizer.json describes it.

    transformers 5 loads any tokenizer beside a `qwen2` config as Qwen's own byte-pair class, whatever the directory
    says; a word-level one then gives no tokens at all. A directory that names the generic class is loaded as that.
    Raises UserError if the tokenizer is damaged, or comes with code of its own, which is not run.
    """
    config_file = Path(directory) / "tokenizer_config.json"
    try:
        settings = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
        is_generic = settings.get("tokenizer_class") in _GENERIC_CLASSES
        return (PreTrainedTokenizerFast if is_generic else AutoTokenizer).from_pretrained(directory)
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: its tokenizer cannot be loaded: {error}") from None


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt as the model expects it: a user's turn of its chat template, or the prompt and a line break."""
    if tokenizer.chat_template is None:
        return prompt + "\n"
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    """The token ids of each rendered prompt.

    A chat template writes its own special tokens; without one, the tokenizer adds those it always begins with.
    """
    texts = [render(tokenizer, prompt) for prompt in prompts]
    return tokenizer(texts, add_special_tokens=tokenizer.chat_template is None).input_ids if texts else []
