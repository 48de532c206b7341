"""Access to an endpoint: its address, its key and its model, and what is said of them when they are wrong."""

import asyncio
import os
import string
from json import JSONDecodeError
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from medcritical_ray.config import EndpointConfig
from medcritical_ray.errors import UserError

_NUM_KEY_CHARS = 8
"""So many are told from any other word; masked, as in "sk-ab***wxyz", fewer are enough."""
_NUM_MASKED_KEY_CHARS = 5

REFUSALS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
"""What asking something else would not mend: the key, the address or the model is wrong."""


def check_endpoint(config: EndpointConfig) -> None:
    """Raises UserError, with the server's own message, if address, key or model are wrong.

    Asks for one token after no message at all: most endpoints refuse that, and charge nothing, but look at address, key
    and model first. A list of models would tell less: some show it to anybody, and some hide what they serve.
    """
    asyncio.run(_check(config))


def openai_client(config: EndpointConfig) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=config.base_url, api_key=_api_key(config), timeout=config.timeout_s, max_retries=0
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


def refused(config: EndpointConfig, error: openai.APIStatusError) -> UserError:
    what = f"refuses the key in ${config.api_key_variable}"
    if isinstance(error, openai.NotFoundError):
        what = f"(teacher.endpoint.base_url) has no {config.model} (teacher.endpoint.model) to chat with"
    return UserError(f"{config.base_url} {what} ({error.status_code}): {message_of(config, error)}")


def message_of(config: EndpointConfig, error: openai.APIStatusError) -> str:
    """The server's own words."""
    body = error.body
    return without_key(config, str(body.get("message", error.message)) if isinstance(body, dict) else error.message)


def cause_of(config: EndpointConfig, error: openai.APIConnectionError) -> str:
    """Why there was no answer."""
    return without_key(config, str(error.__cause__ or "") or str(error))


def without_key(config: EndpointConfig, text: str) -> str:
    """The text in one line without the key, of which servers like to quote the beginning."""
    key = _api_key(config)
    return " ".join("(key)" if _quotes(word, key) else word for word in text.split())


def _quotes(word: str, key: str) -> bool:
    if len(key) < _NUM_KEY_CHARS:  # a word put in because the server wants none: it may be part of others
        return word.strip(string.punctuation) == key
    is_masked = "*" in word or "…" in word
    return key[: _NUM_MASKED_KEY_CHARS if is_masked else _NUM_KEY_CHARS] in word


async def _check(config: EndpointConfig) -> None:
    try:
        async with openai_client(config) as client:
            asking = client.with_options(max_retries=1).chat.completions
            answer: Any = await asking.create(model=config.model, messages=[], max_tokens=1)
    except REFUSALS as error:
        raise refused(config, error) from None
    except openai.APIConnectionError as error:
        where = f"{config.base_url} (teacher.endpoint.base_url)"
        raise UserError(f"no answer from {where}: {cause_of(config, error)}") from None
    except openai.OpenAIError:
        return  # it answers, and has nothing against who asks for what
    except JSONDecodeError:
        answer = None
    if not isinstance(answer, ChatCompletion):
        raise UserError(f"{config.base_url} (teacher.endpoint.base_url) answers, but not with a chat completion")
