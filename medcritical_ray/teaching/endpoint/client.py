"""Asks an OpenAI-compatible endpoint: bounded, patient, within a budget, and never the same thing twice."""

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import openai
from pydantic import BaseModel, Field, ValidationError

from medcritical_ray.config import EndpointConfig
from medcritical_ray.errors import MedCriticalError
from medcritical_ray.files import parse_json
from medcritical_ray.teaching.endpoint.access import REFUSALS, cause_of, message_of, openai_client, refused, without_key
from medcritical_ray.teaching.endpoint.budget import Budget, BudgetSpent, most_prompt_tokens
from medcritical_ray.teaching.endpoint.responses import Response, ResponseStore, request_hash

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_RETRY_AFTER_S = 600.0
_MOST_TOKENS = 10**9
_GONE_AFTER = 10
"""Requests in a row, each repeated as often as the config says, that a working endpoint never leaves unanswered."""

Messages = list[dict[str, str]]
Item = TypeVar("Item")
Result = TypeVar("Result")


class NotAnswered(MedCriticalError, RuntimeError):
    """The endpoint gave no usable response to a request, however often it was asked."""


class _Refused(NotAnswered):
    """The endpoint is there, and will not answer this request."""


class _Passing(Exception):
    """What asking again may mend; `retry_after_s` is how long the server asks to be left alone."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EndpointGone(MedCriticalError, RuntimeError):
    """The endpoint answers nothing any more. What it did answer is kept."""


async def in_bulk(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, num_workers: int, advance: Callable[[], None]
) -> list[Result]:
    """What `work` makes of each item, in their order, `num_workers` at a time; `advance` is told of each that is done.

    After the first error nothing more is begun, and it is raised once what is under way, and paid for, is finished.
    """
    results: dict[int, Result] = {}
    waiting = deque(enumerate(items))

    async def worker() -> None:
        while waiting:
            position, item = waiting.popleft()
            try:
                results[position] = await work(item)
            except Exception:
                waiting.clear()
                raise
            advance()

    ends = await asyncio.gather(*(worker() for _ in range(num_workers)), return_exceptions=True)
    for error in ends:
        if error:
            raise error
    return [results[position] for position in sorted(results)]


class EndpointClient:
    """Answers from the store, else from the endpoint. Use it in one event loop, as a context manager.

    What fails on the way (429, 5xx, broken connections, time-outs) or arrives broken is asked for again after a pause
    that doubles each time, or is as long as a Retry-After says, up to ten minutes; of the budget, nothing is set aside
    meanwhile. After an error that asking something else would not mend, nothing more is asked.
    """

    def __init__(self, config: EndpointConfig, store: ResponseStore, purpose: str) -> None:
        self._config = config
        self._store = store
        self._purpose = purpose
        self._budget = Budget(config, store.usage())
        self._same: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._num_unanswered = 0
        self._end: Exception | None = None
        self._client = openai_client(config)

    async def ask(self, messages: Messages) -> Response:
        """Raises NotAnswered if there is no usable response in the end, BudgetSpent before it might cost too much,
        UserError if address, key or model are wrong, EndpointGone if it leaves everything unanswered."""
        request = {
            "model": self._config.model,
            "messages": messages,
            "temperature": self._config.temperature,
            "max_tokens": self._config.max_tokens,
        }
        key = request_hash(request)
        async with self._same[key]:  # whoever asks the same meanwhile finds it answered
            known = self._store.get(key)
            if known is not None:
                return known
            try:
                response = await self._answered(request, most_prompt_tokens(messages))
                self._store.put(key, self._purpose, response)
            except (NotAnswered, BudgetSpent):
                raise
            except Exception as error:
                self._end = error
                raise
            return response

    async def _answered(self, request: dict[str, Any], prompt_tokens: int) -> Response:
        try:
            response = await self._pay_for(request, prompt_tokens)
        except _Refused:
            raise
        except NotAnswered as error:
            self._num_unanswered += 1
            if self._num_unanswered < _GONE_AFTER:
                raise
            where = f"{self._config.base_url} (teacher.endpoint.base_url)"
            raise EndpointGone(f"{where} left {_GONE_AFTER} requests in a row unanswered, the last: {error}") from None
        self._num_unanswered = 0
        return response

    async def _pay_for(self, request: dict[str, Any], prompt_tokens: int) -> Response:
        num_repeated = 0
        while True:
            if self._end:
                raise self._end
            try:
                return await self._pay_once(request, prompt_tokens)
            except _Passing as trouble:
                if trouble.retry_after_s > _LONGEST_RETRY_AFTER_S:
                    asks = f"asks to wait {trouble.retry_after_s:,.0f} s, more than {_LONGEST_RETRY_AFTER_S:,.0f} s"
                    raise NotAnswered(f"{trouble}; {asks}") from None
                if num_repeated == self._config.max_retries:
                    raise NotAnswered(str(trouble)) from None
                pause_s = min(_FIRST_PAUSE_S * 2**num_repeated, _LONGEST_PAUSE_S)
                await asyncio.sleep(max(pause_s, trouble.retry_after_s))
                num_repeated += 1

    async def _pay_once(self, request: dict[str, Any], prompt_tokens: int) -> Response:
        config = self._config
        await self._budget.set_aside(prompt_tokens, config.max_tokens)
        taken = (0, 0)
        try:
            async with asyncio.timeout(config.timeout_s):  # the client's own limit is for each part of an answer
                answer = await self._client.chat.completions.with_raw_response.create(**request)
            response = _read(answer.http_response.content, config.model, (prompt_tokens, config.max_tokens))
            taken = response.prompt_tokens, response.completion_tokens
            return response
        except (TimeoutError, openai.APITimeoutError):
            raise _Passing(f"no answer within teacher.endpoint.timeout_s = {config.timeout_s:g} s") from None
        except REFUSALS as error:
            raise refused(config, error) from None
        except openai.APIStatusError as error:
            message = f"{error.status_code}: {message_of(config, error)}"
            if not _is_passing(error.status_code):
                raise (_Refused if error.status_code == 400 else NotAnswered)(message) from None
            raise _Passing(message, retry_after_s(error.response.headers.get("Retry-After", ""))) from None
        except openai.APIConnectionError as error:
            raise _Passing(cause_of(config, error)) from None
        except (openai.OpenAIError, ValueError) as error:
            raise _Passing(without_key(config, str(error))) from None
        finally:
            await self._budget.give_back(prompt_tokens - taken[0], config.max_tokens - taken[1])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


def _is_passing(status_code: int) -> bool:
    return status_code in (408, 409, 429) or status_code >= 500


def retry_after_s(header: str) -> float:
    """Seconds from now that a Retry-After header asks for (RFC 9110: a number of them, or a date); 0 if none can be
    read."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """What is read of a chat completion. Of its `usage` anything may come."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    completion_tokens: int = Field(ge=0, le=_MOST_TOKENS)


def _read(body: bytes, model: str, set_aside: tuple[int, int]) -> Response:
    """Raises ValueError for a body that is no chat completion. One without a text, as from a model that thought for too
    long, is a response: it was paid for. One that does not tell its tokens counts as all that was set aside for it."""
    try:
        completion = _Completion.model_validate_json(_whole_characters(body))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ValueError(f"the body is no chat completion: {where} {error.errors()[0]['msg']}") from None
    text = completion.choices[0].message.content or ""
    prompt_tokens, completion_tokens = _tokens(completion.usage) or set_aside
    return Response(
        model=model,
        text=text,
        finished=completion.choices[0].finish_reason == "stop" and bool(text),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _whole_characters(body: bytes) -> bytes:
    """JSON without halves of surrogate pairs: a text that was cut off may end with one, and no file can hold it."""
    return json.dumps(parse_json(body), ensure_ascii=False).encode("utf-8", "replace")


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Those of prompt and completion, if the endpoint tells both."""
    try:
        told = _Usage.model_validate(usage)
    except ValidationError:
        return None
    return told.prompt_tokens, told.completion_tokens
