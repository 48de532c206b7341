"""A request's body as vLLM's protocol has it, once it is known to ask for no more than it may."""

from typing import Any

from pydantic import ValidationError

from medcritical_ray.config import ServeConfig
from medcritical_ray.serving.limits import check_limits, num_prompts
from medcritical_ray.serving.refusals import Refusal, Refused, bad_value

_INTERNAL = {
    *("kv_transfer_params", "ec_transfer_params", "vllm_xargs", "prompt_embeds", "request_id", "session_id"),
    *("priority", "cache_salt", "mm_processor_kwargs", "media_io_kwargs", "repetition_detection"),
}
"""What vLLM lets a client tell the engine, and other servers around it: nothing that who asks should decide."""

_TEXTS = ("text", "refusal")
"""Types of the parts of a message's content, each under its own name."""


def read_request(body: bytes, limits: ServeConfig, *, chat: bool) -> Any:
    """A ChatCompletionRequest or CompletionRequest. Raises Refused, naming the field that is wrong."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.exceptions import VLLMValidationError

    kind = ChatCompletionRequest if chat else CompletionRequest
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise Refused(_invalid(error)) from None
    except VLLMValidationError as error:
        raise Refused(bad_value(error.parameter or "body", str(error.args[0]))) from None
    except Exception:  # noqa: BLE001  # of a validator that a value breaks whose type it did not think of
        raise Refused(bad_value("body", "has a value of a type that the API does not know")) from None
    if not request.model:
        raise Refused(bad_value("model", "is missing: must be one that /v1/models lists"))
    for name in sorted(_INTERNAL & request.model_fields_set):
        raise Refused(bad_value(name, "is no part of this API"))
    _check_plain(request)
    if isinstance(request, ChatCompletionRequest):
        _check_texts(request.messages)
    _limit(request, limits, chat=chat)
    return request


def _check_plain(request: Any) -> None:
    """Raises Refused for what policies are not trained to write. A grammar would be compiled in the engine that all
    share, and a student's vocabulary need not have the words for one."""
    wanted = getattr(request, "response_format", None)
    if (wanted and wanted.type != "text") or request.structured_outputs:
        raise Refused(bad_value("response_format", "must be of type text: policies write as they were trained to"))
    if getattr(request, "tools", None):
        raise Refused(bad_value("tools", "must not be given: policies call none"))


def _check_texts(messages: list[Any]) -> None:
    """Raises Refused unless there are messages, and all contents are text: vLLM would fetch the address of an image."""
    if not messages:
        raise Refused(bad_value("messages", "must hold at least one message"))
    for number, message in enumerate(messages):
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        try:
            parts = message["content"] = list(content)  # pydantic looks at parts when they are taken, and but once
        except ValidationError:
            parts = [None]
        if not all(isinstance(part, dict) and part.get("type") in _TEXTS and _has_text(part) for part in parts):
            raise Refused(bad_value(f"messages.{number}.content", "must be a text, or parts that are texts"))


def _has_text(part: dict[str, Any]) -> bool:
    return isinstance(part.get(part["type"]), str)


def _limit(request: Any, limits: ServeConfig, *, chat: bool) -> None:
    """A chat request without a limit gets the largest that there is, as long as the context has room for it."""
    num_texts = (request.n or 1) * (1 if chat else num_prompts(request.prompt))
    param = "max_completion_tokens" if chat and request.max_completion_tokens is not None else "max_tokens"
    check_limits(limits, param=param, max_tokens=getattr(request, param), num_texts=num_texts)


def _invalid(error: ValidationError) -> Refusal:
    from vllm.entrypoints.serve.exception_handling.handlers.validation import clean_loc_for_param

    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Refusal(status=400, message=f"The body is not valid JSON: {first['msg']}", code="invalid_json")
    param = clean_loc_for_param(first["loc"]) if first["loc"] else "body"
    return bad_value(param, first["msg"])
