"""Asks an OpenAI-compatible endpoint: bounded, patient, within a budget, and never the same thing twice."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from json import JSONDecodeError
from types import TracebackType
from typing import Any, Self, TypeVar

import openai
from openai.types.chat import ChatCompletion

from medcritical_ray.config import EndpointConfig
from medcritical_ray.endpoint.budget import Budget, BudgetSpent, most_prompt_tokens
from medcritical_ray.endpoint.responses import Response, ResponseStore, request_hash
from medcritical_ray.errors import MedCriticalError, UserError

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_NUM_KEY_CHARS = 5
_GONE_AFTER = 10
"""Requests in a row, each repeated as often as the config says, that a working endpoint never leaves unanswered."""

_REFUSALS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
"""What asking something else would not mend: the key, the address or the model is wrong."""

Messages = list[dict[str, str]]
Item = TypeVar("Item")
Result = TypeVar("Result")


class NotAnswered(MedCriticalError, RuntimeError):
    """The endpoint gave no usable response to a request, however often it was asked."""


class EndpointGone(MedCriticalError, RuntimeError):
    """The endpoint answers nothing any more. What it did answer is kept."""


def check_endpoint(config: EndpointConfig) -> None:
    """Raises UserError, with the server's own message, if address, key or model are wrong.

    Asks for one token after no message at all: most endpoints refuse that, and charge nothing, but look at address, key
    and model first. A list of models would tell less: some show it to anybody, and some hide what they serve.
    """
    asyncio.run(_check(config))


async def in_bulk(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, num_workers: int, advance: Callable[[], None]
) -> list[Result]:
    """What `work` makes of each item, in their order, `num_workers` at a time; `advance` is told of each that is done.

    A worker ends with the first error. The others finish what is under way, since it is paid for, before it is raised.
    """
    results: dict[int, Result] = {}
    waiting = enumerate(items)

    async def worker() -> None:
        for position, item in waiting:
            results[position] = await work(item)
            advance()

    ends = await asyncio.gather(*(worker() for _ in range(num_workers)), return_exceptions=True)
    for error in ends:
        if error:
            raise error
    return [results[position] for position in sorted(results)]


class EndpointClient:
    """Answers from the store, else from the endpoint. Use it in one event loop, as a context manager.

    The openai client repeats what failed on the way (429, 5xx, broken connections, time-outs), and waits as long as a
    Retry-After says; what arrives broken is asked for again here. After an error that asking something else would not
    mend, nothing more is asked.
    """

    def __init__(self, config: EndpointConfig, store: ResponseStore, purpose: str) -> None:
        self._config = config
        self._store = store
        self._purpose = purpose
        self._budget = Budget(config, store.usage())
        self._same: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._num_unanswered = 0
        self._end: Exception | None = None
        self._client = _openai_client(config)

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
            if self._end:
                raise self._end
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
        except NotAnswered as error:
            self._num_unanswered += 1
            if self._num_unanswered < _GONE_AFTER:
                raise
            where = f"{self._config.base_url} (teacher.endpoint.base_url)"
            raise EndpointGone(f"{where} left {_GONE_AFTER} requests in a row unanswered, the last: {error}") from None
        self._num_unanswered = 0
        return response

    async def _pay_for(self, request: dict[str, Any], prompt_tokens: int) -> Response:
        cause = ""
        for repetition in range(self._config.max_retries + 1):
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2**repetition, _LONGEST_PAUSE_S) if repetition else 0)
            await self._budget.set_aside(prompt_tokens, self._config.max_tokens)
            taken = (0, 0)
            try:
                completion = await self._client.chat.completions.create(**request)
                response = _read(completion, self._config.model, (prompt_tokens, self._config.max_tokens))
                taken = response.prompt_tokens, response.completion_tokens
                return response
            except _REFUSALS as error:
                raise _refused(self._config, error) from None
            except openai.APIStatusError as error:
                raise NotAnswered(f"{error.status_code}: {_message(self._config, error)}") from None
            except openai.APIConnectionError as error:
                raise NotAnswered(_without_key(self._config, str(error.__cause__ or error))) from None
            except (openai.OpenAIError, ValueError) as error:
                cause = _without_key(self._config, str(error))
            finally:
                await self._budget.give_back(prompt_tokens - taken[0], self._config.max_tokens - taken[1])
        raise NotAnswered(cause)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


async def _check(config: EndpointConfig) -> None:
    try:
        async with _openai_client(config) as client:
            asking = client.with_options(max_retries=1).chat.completions
            answer: Any = await asking.create(model=config.model, messages=[], max_tokens=1)
    except _REFUSALS as error:
        raise _refused(config, error) from None
    except openai.APIConnectionError as error:
        cause = _without_key(config, str(error.__cause__ or error))
        raise UserError(f"no answer from {config.base_url} (teacher.endpoint.base_url): {cause}") from None
    except openai.OpenAIError:
        return  # it answers, and has nothing against who asks for what
    except JSONDecodeError:
        answer = None
    if not isinstance(answer, ChatCompletion):
        raise UserError(f"{config.base_url} (teacher.endpoint.base_url) answers, but not with a chat completion")


def _openai_client(config: EndpointConfig) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=config.base_url, api_key=_api_key(config), timeout=config.timeout_s, max_retries=config.max_retries
    )


def _api_key(config: EndpointConfig) -> str:
    key = os.environ.get(config.api_key_variable, "").strip()
    if not key:
        raise UserError(
            f"${config.api_key_variable} is not set: put the endpoint's key there, or name another variable in "
            "teacher.endpoint.api_key_variable"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"${config.api_key_variable} holds characters that no key has: put the endpoint's key there")
    return key


def _refused(config: EndpointConfig, error: openai.APIStatusError) -> UserError:
    what = f"refuses the key in ${config.api_key_variable}"
    if isinstance(error, openai.NotFoundError):
        what = f"(teacher.endpoint.base_url) has no {config.model} (teacher.endpoint.model) to chat with"
    return UserError(f"{config.base_url} {what} ({error.status_code}): {_message(config, error)}")


def _message(config: EndpointConfig, error: openai.APIStatusError) -> str:
    """The server's own words."""
    body = error.body
    return _without_key(config, str(body.get("message", error.message)) if isinstance(body, dict) else error.message)


def _without_key(config: EndpointConfig, text: str) -> str:
    """The text in one line without the key, of which servers like to quote the beginning."""
    start = _api_key(config)[:_NUM_KEY_CHARS]
    return " ".join("(key)" if start in word else word for word in text.split())


def _read(completion: Any, model: str, set_aside: tuple[int, int]) -> Response:
    """Raises ValueError for a body that is no chat completion. One without a text, as from a model that thought for too
    long, is a response: it was paid for. One that does not tell its tokens counts as all that was set aside for it."""
    if not isinstance(completion, ChatCompletion):
        raise ValueError("the body is no chat completion")
    if not completion.choices or completion.choices[0].message is None:
        raise ValueError("the response has no choices")
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.content or ""
    prompt_tokens, completion_tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else set_aside
    return Response(
        model=model,
        text=text,
        finished=choice.finish_reason == "stop" and bool(text),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
