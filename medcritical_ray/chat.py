"""From a prompt to the text and tokens that a model sees. Engines and trainers both come here, so that they agree."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

_GENERIC_CLASSES = {"TokenizersBackend", "PreTrainedTokenizerFast"}


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face directory, exactly as its tokenizer.json describes it.

    transformers 5 loads any tokenizer beside a `qwen2` config as Qwen's own byte-pair class, whatever the directory
    says; a word-level one then gives no tokens at all. A directory that names the generic class is loaded as that.
    """
    config_file = Path(directory) / "tokenizer_config.json"
    named_class = json.loads(config_file.read_text())["tokenizer_class"] if config_file.exists() else None
    loader = PreTrainedTokenizerFast if named_class in _GENERIC_CLASSES else AutoTokenizer
    return loader.from_pretrained(directory)


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt as the model expects it: a user's turn of its chat template, or the prompt and a line break."""
    if tokenizer.chat_template is None:
        return prompt + "\n"
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str], prefixes: list[str]) -> list[list[int]]:
    """The token ids of each rendered prompt followed by its prefix; () if there are none.

    A chat template writes its own special tokens; without one, the tokenizer adds those it always begins with.
    """
    texts = [render(tokenizer, prompt) + prefix for prompt, prefix in zip(prompts, prefixes, strict=True)]
    return tokenizer(texts, add_special_tokens=tokenizer.chat_template is None).input_ids if texts else []
