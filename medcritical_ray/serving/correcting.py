"""One round of self-correction as a response of the API."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from medcritical_ray.serving.refusals import Refused, bad_value
from medcritical_ray.serving.self_correction import SelfCorrection, check_prompt, corrected, not_corrected

Ask = Callable[[Any], Awaitable[Any]]
"""Gives the response to a chat request, both as vLLM's protocol has them."""


async def self_correct(ask: Ask, request: Any, *, answer_tokens: int, correction_tokens: int) -> dict[str, Any]:
    """The response to a chat request, whose last message is a user's: its content is what the policy's answer and its
    check of it come to, and `self_correction` has the way to it.

    An answer has `answer_tokens` tokens at most, a correction `correction_tokens`. Raises Refused.
    """
    question = _question(request)
    first = await ask(_with_limit(request, answer_tokens))
    text, finished = _text_of(first)
    prompt = check_prompt(question, text, finished=finished)
    if prompt is None:
        return _response(first, [first], not_corrected(text, "unreadable answer"))
    asked = [*request.messages[:-1], {"role": "user", "content": prompt}]
    try:
        second = await ask(_with_limit(request.model_copy(update={"messages": asked}), correction_tokens))
    except Refused as refused:
        if refused.refusal.code != "context_length_exceeded":
            raise
        return _response(first, [first], not_corrected(text, "no room"))
    written, finished = _text_of(second)
    return _response(first, [first, second], corrected(text, written, finished=finished))


def events_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """A response as the chunks of a stream: the text in one, its end in the other."""
    shared = {key: response[key] for key in ("id", "created", "model", "system_fingerprint")}
    choice = response["choices"][0]
    delta = {"role": "assistant", "content": choice["message"]["content"]}
    chunks = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {
            "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}],
            "usage": response["usage"],
            "self_correction": response["self_correction"],
        },
    ]
    return [{**shared, "object": "chat.completion.chunk", **chunk} for chunk in chunks]


def _question(request: Any) -> str:
    """The text of the last message. Raises Refused unless that is a user's."""
    message = request.messages[-1] if request.messages else {}
    content = message.get("content")
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = "\n".join(part["text"] for part in content)
    if message.get("role") != "user" or not isinstance(content, str):
        raise Refused(bad_value("messages", "the last one must be a user's, and a text, to be answered and checked"))
    if (request.n or 1) != 1:
        raise Refused(bad_value("n", "must be 1 where answers are corrected"))
    return content


def _with_limit(request: Any, max_tokens: int) -> Any:
    """The request for one text at once."""
    asked = request.max_completion_tokens or request.max_tokens or max_tokens
    once = {"stream": False, "stream_options": None, "max_completion_tokens": None}
    return request.model_copy(update={**once, "max_tokens": min(asked, max_tokens)})


def _text_of(response: Any) -> tuple[str, bool]:
    """What was written, and whether it ended by itself."""
    choice = response.choices[0]
    return choice.message.content or "", choice.finish_reason == "stop"


def _response(first: Any, responses: list[Any], correction: SelfCorrection) -> dict[str, Any]:
    """The first response with the text that it comes to, what all of them took, and the way there."""
    response: dict[str, Any] = first.model_dump()
    response["choices"][0]["message"]["content"] = correction.final
    prompt, written = (
        sum(getattr(each.usage, name) for each in responses) for name in ("prompt_tokens", "completion_tokens")
    )
    response["usage"] |= {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    way = asdict(correction)
    del way["final"]
    return {**response, "self_correction": way}
