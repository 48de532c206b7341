"""Why a request gets no answer, in the form of the OpenAI API."""

from dataclasses import dataclass
from typing import Any

from medcritical_ray.errors import MedCriticalError
from medcritical_ray.serving.model_ids import SELF_CORRECT

RETRY_AFTER_S = 1
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An HTTP status, the message, the field of the request that it is about, and a word for programs."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Says who may try again when, and how to show a key."""
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_AFTER_S)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


class Refused(MedCriticalError):
    """A request that gets a refusal instead of an answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def wrong_key() -> Refusal:
    return Refusal(status=401, message="Wrong or missing API key: send it as 'Bearer KEY'.", code="invalid_api_key")


def unknown_model(name: str, known: list[str], *, is_pruned: bool = False, has_corrected: bool = False) -> Refusal:
    """`has_corrected`: whether each of the known ones is listed with its answers corrected, too."""
    fault = "was pruned, as run.keep_policies has it" if is_pruned else "does not exist"
    listed = ", ".join(known) + (f", and each of these with {SELF_CORRECT} behind it" if has_corrected else "")
    message = f"The model {name[:80]!r} {fault}: /v1/models lists {listed}."
    return Refusal(status=404, message=message, param="model", code="model_not_found")


def body_too_large(max_bytes: int) -> Refusal:
    return Refusal(status=413, message=f"The body has more than {max_bytes} bytes.", code="body_too_large")


def bad_value(param: str, message: str) -> Refusal:
    return Refusal(status=400, message=f"{param}: {message}", param=param, code="invalid_value")


def too_long(param: str, has: str, *, answer_tokens: int, max_model_len: int) -> Refusal:
    """`has` says how long it is; `answer_tokens` are those that were asked for beside it."""
    room = f"the context has {max_model_len} tokens (engines.max_model_len)"
    asked = f", and {answer_tokens} of them are asked for the answer: shorten it, or lower max_tokens"
    message = f"{param}: has {has}, but {room}{asked if answer_tokens else ': shorten it'}."
    return Refusal(status=400, message=message, param=param, code="context_length_exceeded")


def overloaded(max_requests: int) -> Refusal:
    message = f"The engine has {max_requests} requests already: try again later."
    return Refusal(status=503, message=message, code="overloaded")


def unavailable() -> Refusal:
    return Refusal(status=503, message="The engine is being replaced: try again later.", code="unavailable")


def timed_out(timeout_s: float) -> Refusal:
    return Refusal(status=504, message=f"Not finished after {timeout_s:g} s.", code="timeout")


def failed() -> Refusal:
    return Refusal(status=500, message="The server failed; its log says why.", code="internal_error")
