"""The OpenAI API over a service, as an ASGI application."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.serving.correcting import events_of
from medcritical_ray.serving.keys import is_authorized
from medcritical_ray.serving.log import NAME
from medcritical_ray.serving.model_ids import ModelId
from medcritical_ray.serving.refusals import (
    Refusal,
    Refused,
    bad_value,
    body_too_large,
    failed,
    timed_out,
    wrong_key,
)
from medcritical_ray.serving.requests import read_request
from medcritical_ray.serving.service import Service

T = TypeVar("T")
_DONE = "data: [DONE]\n\n"
logger = logging.getLogger(NAME)
SEND_S = 5.0
"""How long after its time an answer may still be sent."""


def make_app(service: Service, keys: Sequence[bytes]) -> Starlette:
    """Starts the service and closes it. `keys` are the digests of those who may ask; without any, everybody may."""

    def check(request: Request) -> None:
        if keys and not is_authorized(request.headers.get("authorization", ""), keys):
            raise Refused(wrong_key())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        service.close()

    async def health(request: Request) -> Response:
        return Response(status_code=200)

    async def ready(request: Request) -> Response:
        return Response(status_code=200 if service.is_ready else 503)

    async def models(request: Request) -> Response:
        check(request)
        return JSONResponse({"object": "list", "data": await asyncio.to_thread(service.models)})

    async def model(request: Request) -> Response:
        check(request)
        name = request.path_params["name"]
        return JSONResponse(await asyncio.to_thread(service.card, name))

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/v1/models", models),
            Route("/v1/models/{name}", model),
            Route("/v1/chat/completions", Completions(service, check, chat=True), methods=["POST"]),
            Route("/v1/completions", Completions(service, check, chat=False), methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _failed},
    )


class Completions:
    """The endpoint that has texts written."""

    def __init__(self, service: Service, check: Callable[[Request], None], *, chat: bool) -> None:
        self._service = service
        self._check = check
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The policy keeps its place in the engine until a stream has ended."""
        request, limits = Request(scope, receive), self._service.config.serve
        self._check(request)
        deadline = asyncio.get_running_loop().time() + limits.request_timeout_s
        async with AsyncExitStack() as stack:
            stack.enter_context(self._service.admitted())
            body = await self._within(deadline, _body(request, limits.max_body_bytes))
            asked = read_request(body, limits, chat=self._chat)
            model = self._service.model(asked.model)
            policy = await self._within(deadline, stack.enter_async_context(self._service.turn(model)))
            answer = await self._within(deadline, self._answer(asked, model, policy))
            if isinstance(answer, AsyncIterator):
                response = StreamingResponse(self._events(answer, deadline), media_type="text/event-stream")
                async with asyncio.timeout_at(deadline + SEND_S):
                    await response(scope, receive, send)
                return
        async with asyncio.timeout_at(deadline + SEND_S):
            await Response(answer, media_type="application/json")(scope, receive, send)

    async def _answer(self, asked: Any, model: ModelId, policy: ServedPolicy) -> "bytes | AsyncIterator[str]":
        """A JSON text, or the events of a stream."""
        if self._chat and not self._service.has_chat:
            raise Refused(bad_value("model", "has no chat template, and none can be made: ask /v1/completions"))
        if model.self_correct:
            return await self._self_corrected(asked, policy)
        answer = await self._service.answer(policy, asked, chat=self._chat)
        return answer if isinstance(answer, AsyncIterator) else answer.model_dump_json().encode()

    async def _self_corrected(self, asked: Any, policy: ServedPolicy) -> "bytes | AsyncIterator[str]":
        if not self._chat:
            raise Refused(bad_value("model", "corrects its answers at /v1/chat/completions only"))
        response = await self._service.self_correct(policy, asked)
        return _stream_of(events_of(response)) if asked.stream else json.dumps(response, ensure_ascii=False).encode()

    async def _within(self, deadline: float, awaited: Awaitable[T]) -> T:
        """Raises Refused if it takes longer; whatever vLLM makes of a request that was cancelled is no answer."""
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                result = await awaited
        except (TimeoutError, Refused):
            if not limit.expired():
                raise
        if limit.expired():
            raise Refused(timed_out(self._service.config.serve.request_timeout_s))
        return result

    async def _events(self, chunks: AsyncIterator[str], deadline: float) -> AsyncIterator[str]:
        """The events of a stream; what goes wrong once it has begun is an event, too."""
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks)
                yield chunk
        except StopAsyncIteration:
            return
        except TimeoutError:
            refusal = timed_out(self._service.config.serve.request_timeout_s)
        except Exception:
            logger.exception("a stream failed")
            refusal = failed()
        yield _event(refusal.body())
        yield _DONE


async def _body(request: Request, max_bytes: int) -> bytes:
    """Raises Refused as soon as it is too large. What is no number is no length: the body's own counts."""
    with suppress(ValueError):
        if int(request.headers.get("content-length", "")) > max_bytes:
            raise Refused(body_too_large(max_bytes))
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise Refused(body_too_large(max_bytes))
    return bytes(body)


async def _stream_of(chunks: list[dict[str, Any]]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield _event(chunk)
    yield _DONE


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if error.refusal.status == failed().status:
        _log_failure(request, error.refusal.message)
    return JSONResponse(error.refusal.body(), error.refusal.status, error.refusal.headers())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(Refusal(status=error.status_code, message=error.detail).body(), error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    _log_failure(request, repr(error))
    return JSONResponse(failed().body(), failed().status)


def _log_failure(request: Request, cause: str) -> None:
    logger.error("%s %s failed: %s", request.method, request.url.path, cause)
