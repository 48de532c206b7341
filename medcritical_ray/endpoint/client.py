"""Asks an OpenAI-compatible endpoint: bounded, patient, within a budget, and never the same thing twice."""

import asyncio
import os
from types import TracebackType
from typing import Any, Self

import openai
from openai.types.chat import ChatCompletion

from medcritical_ray.config import EndpointConfig
from medcritical_ray.endpoint.budget import Budget, most_prompt_tokens
from medcritical_ray.endpoint.responses import Response, ResponseStore, request_hash
from medcritical_ray.errors import MedCriticalError, UserError

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_NUM_KEY_CHARS = 5

Messages = list[dict[str, str]]


class NotAnswered(MedCriticalError, RuntimeError):
    """The endpoint gave no usable response to a request, however often it was asked."""


class EndpointClient:
    """Answers from the store, else from the endpoint. Use it in one event loop, as a context manager.

    The openai client repeats what failed on the way (429, 5xx, broken connections, time-outs), and waits as long as a
    Retry-After says; what arrives broken is asked for again here.
    """

    def __init__(self, config: EndpointConfig, store: ResponseStore) -> None:
        self._config = config
        self._store = store
        self._budget = Budget(config, store.usage())
        self._places = asyncio.Semaphore(config.max_in_flight)
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=_api_key(config),
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )

    async def check(self) -> None:
        """Raises UserError, with the server's own message, if the endpoint cannot be used at all."""
        try:
            await self._client.with_options(max_retries=1).models.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise UserError(f"no answer from {self._config.base_url} (teacher.endpoint.base_url): {cause}") from None
        except openai.APIError:
            return  # some endpoints list no models; the first request will tell

    async def ask(self, messages: Messages) -> Response:
        """Raises NotAnswered if there is no usable response in the end, BudgetSpent before it might cost too much,
        UserError if the endpoint refuses the key."""
        request = {
            "model": self._config.model,
            "messages": messages,
            "temperature": self._config.temperature,
            "max_tokens": self._config.max_tokens,
        }
        key = request_hash(request)
        async with self._places:
            known = self._store.get(key)
            if known is not None:
                return known
            response = await self._pay_for(request, most_prompt_tokens(messages))
            self._store.put(key, response)
            return response

    async def _pay_for(self, request: dict[str, Any], prompt_tokens: int) -> Response:
        cause = ""
        for repetition in range(self._config.max_retries + 1):
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2**repetition, _LONGEST_PAUSE_S) if repetition else 0)
            await self._budget.set_aside(prompt_tokens, self._config.max_tokens)
            taken = (0, 0)
            try:
                response = _read(await self._client.chat.completions.create(**request), self._config.model)
                taken = response.prompt_tokens, response.completion_tokens
                return response
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise self._refused(error) from None
            except openai.APIStatusError as error:
                raise NotAnswered(f"{error.status_code}: {self._message(error)}") from None
            except openai.APIConnectionError as error:
                raise NotAnswered(f"{error.__cause__ or error}") from None
            except (openai.OpenAIError, ValueError) as error:
                cause = str(error)
            finally:
                await self._budget.give_back(prompt_tokens - taken[0], self._config.max_tokens - taken[1])
        raise NotAnswered(cause)

    def _refused(self, error: openai.APIStatusError) -> UserError:
        return UserError(
            f"{self._config.base_url} refuses the key in ${self._config.api_key_variable} "
            f"({error.status_code}): {self._message(error)}"
        )

    def _message(self, error: openai.APIStatusError) -> str:
        """The server's own words, without the key, of which servers like to quote the beginning."""
        body = error.body
        text = str(body.get("message", error.message)) if isinstance(body, dict) else error.message
        start = self._client.api_key[:_NUM_KEY_CHARS]
        return " ".join("(key)" if start in word else word for word in text.split())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


def _api_key(config: EndpointConfig) -> str:
    key = os.environ.get(config.api_key_variable, "")
    if not key:
        raise UserError(
            f"${config.api_key_variable} is not set: put the endpoint's key there, or name another variable in "
            "teacher.endpoint.api_key_variable"
        )
    return key


def _read(completion: Any, model: str) -> Response:
    """Raises ValueError for a body that is no chat completion with a text."""
    if not isinstance(completion, ChatCompletion):
        raise ValueError("the body is no chat completion")
    if not completion.choices or completion.choices[0].message is None:
        raise ValueError("the response has no choices")
    choice, usage = completion.choices[0], completion.usage
    if not choice.message.content:
        raise ValueError("the response has no text")
    if usage is None:
        raise ValueError("the response does not say how many tokens it took")
    return Response(
        model=model,
        text=choice.message.content,
        finished=choice.finish_reason == "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
