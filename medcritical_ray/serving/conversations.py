"""What is asked in a chat, token by token, where its texts spell out control tokens: vLLM would take them for such."""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from medcritical_ray.literal import control_ids, conversation_ids
from medcritical_ray.serving.refusals import Refused, bad_value, too_long


def literal_ids(tokenizer: PreTrainedTokenizerBase, request: Any, max_model_len: int) -> list[int] | None:
    """The token ids of a chat request's conversation; None where vLLM's own are the same, since no text spells out a
    control token. Raises Refused if there is no way to ask it, or no room."""
    messages = [{**message, "content": _text_of(message)} for message in request.messages]
    texts = [message["content"] for message in messages]
    if not any(control_ids(tokenizer, ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids):
        return None
    if request.tools or request.documents or request.chat_template_kwargs:
        raise Refused(bad_value("messages", "spell out control tokens, which goes with nothing but messages"))
    try:
        ids = conversation_ids(
            tokenizer,
            messages,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
        )
    except (TemplateError, ValueError) as error:
        raise Refused(bad_value("messages", str(error))) from None
    if len(ids) >= max_model_len:
        raise Refused(too_long("messages", f"{len(ids)} tokens", answer_tokens=0, max_model_len=max_model_len))
    return ids


def _text_of(message: Any) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part[part["type"]] for part in content)
