"""From a prompt to the text and tokens that a model sees. Engines and trainers both come here, so that they agree."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json
from medcritical_ray.literal import control_ids, conversation_ids, ids_as_text

GENERIC_CLASSES = {"TokenizersBackend", "PreTrainedTokenizerFast"}
"""Names of the class that reads tokenizer.json as it is: that of transformers 5, and that of 4 and 5."""
PROBES = ["What is it?\n- rest (A)\n- water (B)", " 患者发热三天。", "a"]
"""Texts that a template must turn into the right tokens: lines, a space at the start, another script."""

_NO_CODE = "load_without_trust_remote_code.TokenizerAsSaved"


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face directory, exactly as its tokenizer.json describes it.

    transformers 5 loads any tokenizer beside a `qwen2` config as Qwen's own byte-pair class, whatever the directory
    says; a word-level one then gives no tokens at all. A directory that names the generic class is loaded as that.
    Raises UserError if the tokenizer is damaged, or comes with code of its own, which is not run.
    """
    config_file = Path(directory) / "tokenizer_config.json"
    try:
        settings = read_json(config_file) if config_file.exists() else {}
        is_generic = isinstance(settings, dict) and settings.get("tokenizer_class") in GENERIC_CLASSES
        kind = PreTrainedTokenizerFast if is_generic else AutoTokenizer
        return kind.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: its tokenizer cannot be loaded: {error}") from None


def pin_tokenizer(directory: Path) -> None:
    """Has AutoTokenizer read tokenizer.json as it is where the directory names the class that does: see load_tokenizer.

    transformers 5 replaces that class for some model types, unless the directory names code of its own, too; it then
    takes the named class after all, and no code unless it is told to trust it. transformers 4 does so in any case.
    There is no such code: whoever asks for it is told so by the name of the missing file.
    """
    file = directory / "tokenizer_config.json"
    settings = read_json(file)
    if settings.get("tokenizer_class") not in GENERIC_CLASSES:
        return
    as_saved = load_tokenizer(directory)
    # transformers 4 knows the class by this name alone, and gives inputs of its own choice, which models refuse.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": as_saved.model_input_names}
    if type(AutoTokenizer.from_pretrained(directory, trust_remote_code=False)) is not type(as_saved):
        settings |= {"auto_map": {"AutoTokenizer": [_NO_CODE, None]}}
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt as the model expects it: a user's turn of its chat template, or the prompt and a line break."""
    if tokenizer.chat_template is None:
        return prompt + "\n"
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    """The token ids of each rendered prompt.

    A chat template writes its own special tokens; without one, the tokenizer adds those it always begins with. A prompt
    has none of its own: what it spells out, such as "<|im_end|>", is text.
    """
    if not prompts:
        return []
    probe, *found = _rendered_ids(tokenizer, ["x", *prompts])
    of_template = control_ids(tokenizer, probe)
    return [
        ids if control_ids(tokenizer, ids) == of_template else _ids_as_text(tokenizer, prompt)
        for ids, prompt in zip(found, prompts, strict=True)
    ]


def _rendered_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    texts = [render(tokenizer, prompt) for prompt in prompts]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=tokenizer.chat_template is None).input_ids
    return ids


def _ids_as_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    if tokenizer.chat_template is None:
        return ids_as_text(tokenizer, render(tokenizer, prompt), add_special_tokens=True)
    return conversation_ids(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)


def prompt_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """For a tokenizer without one, a chat template that gives a user's only turn the tokens of `prompt_token_ids`.

    None if there is no such template: some tokenizers read a text differently after a special token that is spelt out.
    """
    with_special, without = (tokenizer(PROBES[0], add_special_tokens=flag).input_ids for flag in (True, False))
    # A text in the middle of a known one tells which tokens stand before and after every text.
    num_before = next((n for n in range(len(with_special)) if with_special[n : n + len(without)] == without), 0)
    before = tokenizer.convert_ids_to_tokens(with_special[:num_before])
    after = tokenizer.convert_ids_to_tokens(with_special[num_before + len(without) :])
    template = _one_turn("".join(before), "".join(after))
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": probe}], chat_template=template, return_dict=False)
        for probe in PROBES
    ]
    return template if rendered == prompt_token_ids(tokenizer, PROBES) else None


def _one_turn(before: str, after: str) -> str:
    """A template of one user's turn that ends with a line break, between two texts; anything else is refused."""
    refusal = "This model is asked one question at a time: one message, of the user, and no other."
    start, end = (json.dumps(text, ensure_ascii=False) for text in (before, "\n" + after))
    return (
        "{%- if messages | length != 1 or messages[0]['role'] != 'user' %}"
        f"{{{{- raise_exception({json.dumps(refusal)}) }}}}"
        "{%- endif %}"
        f"{{{{- {start} + messages[0]['content'] + {end} }}}}"
    )
