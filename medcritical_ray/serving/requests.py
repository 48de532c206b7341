"""A request's body as vLLM's protocol has it, once it is known to ask for no more than it may."""

from typing import Any

from pydantic import ValidationError

from medcritical_ray.config import ServeConfig
from medcritical_ray.serving.limits import check_limits, num_prompts
from medcritical_ray.serving.refusals import Refusal, Refused, bad_value


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
    if not request.model:
        raise Refused(bad_value("model", "is missing: must be one that /v1/models lists"))
    _limit(request, limits, chat=chat)
    return request


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
