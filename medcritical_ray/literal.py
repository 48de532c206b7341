"""Text that spells out control tokens, such as "<|im_end|>" or "<think>", and stays text to a model.

A tokenizer takes such words for the tokens wherever they stand. Then who writes a question could end the user's turn,
and begin that of the assistant. Only chat templates, and what a tokenizer adds by itself, may do that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

_TAG = re.compile(r"<[^\s<>]+>")
"""The form of control tokens that tokenizers do not call special, such as "<think>"."""
_BEGIN, _END = "\ud800", "\udfff"
"""Around what is text in a rendered conversation: halves of surrogate pairs, which no text holds."""


def control_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, tags: bool = True) -> list[int]:
    """Those of the token ids that are control tokens, in their order."""
    controls = _controls(tokenizer, tags)
    return [each for each in ids if each in controls]


def ids_as_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool = False, tags: bool = True
) -> list[int]:
    """The token ids of a text, none of which is a control token but those that the tokenizer adds at its ends."""
    found = _plain(tokenizer, tags).encode(text, add_special_tokens=add_special_tokens)
    controls = _controls(tokenizer, tags)
    # Where a whole word is looked up, that of a control token may be a word of the vocabulary.
    unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
    ids: list[int] = []
    for token_id, is_added in zip(found.ids, found.special_tokens_mask, strict=True):
        ids += [token_id] if is_added or token_id not in controls else unknown
    return ids


def written_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The token ids of texts that a policy wrote, or is to write. Tags such as "<think>" are its own words; what the
    tokenizer calls special is none of them, since that does not get into the text of what a policy wrote."""
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    return [
        ids_as_text(tokenizer, text, tags=False) if control_ids(tokenizer, ids, tags=False) else ids
        for text, ids in zip(texts, found, strict=True)
    ]


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **template: Any
) -> list[int]:
    """The token ids of a conversation, by the tokenizer's chat template: of its texts none is a control token."""
    marked = [{**message, "content": _marked(message["content"])} for message in messages]
    rendered = str(tokenizer.apply_chat_template(marked, tokenize=False, **template))
    ids: list[int] = []
    for number, part in enumerate(re.split(f"[{_BEGIN}{_END}]", rendered)):
        is_text = number % 2 == 1
        ids += ids_as_text(tokenizer, part) if is_text else tokenizer(part, add_special_tokens=False).input_ids
    return ids


def _marked(text: str) -> str:
    """Between marks, but for the spaces around it, which a template may take away."""
    text = text.encode("utf-8", "replace").decode()
    inner = text.strip()
    before, _, after = text.partition(inner) if inner else (text, "", "")
    return f"{before}{_BEGIN}{inner}{_END}{after}"


@lru_cache(maxsize=8)
def _controls(tokenizer: PreTrainedTokenizerBase, tags: bool) -> frozenset[int]:
    """The token for whatever is unknown is none: it stands for text."""
    added = tokenizer.added_tokens_decoder.items()
    found = {token_id for token_id, token in added if _is_control(token.content, token.special, tags)}
    return frozenset(found - {tokenizer.unk_token_id})


@lru_cache(maxsize=8)
def _plain(tokenizer: PreTrainedTokenizerBase, tags: bool) -> Tokenizer:
    """The same tokenizer, to which control tokens are text."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = _is_control(token["content"], token["special"], tags)
    plain = Tokenizer.from_str(json.dumps(content))
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    return plain


def _is_control(word: str, is_special: bool, tags: bool) -> bool:
    return is_special or (tags and bool(_TAG.fullmatch(word)))
