"""Requests of any content to the served API: an answer, or a refusal in the API's own form."""

import asyncio
import json
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import pytest
from hostile import LONG, NASTY, json_values, plain, texts
from hypothesis import given
from hypothesis import strategies as st
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
)
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.record import new_record
from medcritical_ray.serving.app import make_app
from medcritical_ray.serving.keys import digest_of
from medcritical_ray.serving.service import Service

pytestmark = pytest.mark.integration

KEY = "a-key-of-this-test"
PATHS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
MESSAGES = [{"role": "user", "content": "What helps?"}]
FIELDS = [
    *("model", "messages", "prompt", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"),
    *("stop", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias", "seed", "user", "tools"),
    *("tool_choice", "response_format", "structured_outputs", "echo", "suffix", "best_of", "min_tokens", "bad_words"),
    *("prompt_logprobs", "allowed_token_ids", "chat_template", "chat_template_kwargs", "prompt_embeds", "request_id"),
    *("kv_transfer_params", "vllm_xargs", "priority", "cache_salt", "reasoning_effort", "documents", "audio"),
]

parts = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]) | texts, "text": texts | json_values})
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | texts},
        optional={"content": texts | st.none() | st.lists(parts, max_size=2) | json_values, "name": texts},
    )
    | json_values,
    max_size=3,
)
numbers = st.integers(-3, 5) | st.sampled_from([2**31, 2**63, 2**64, -1, 0.5, 1e300, 10**400])
fields = st.dictionaries(st.sampled_from(FIELDS) | texts, json_values | numbers | texts | messages, max_size=3)


class FakeEngine:
    """Answers all that gets this far, a chat with an answer line and what was said last."""

    has_chat_template = True
    is_alive = True

    def __init__(self, *arguments: Any) -> None: ...

    async def open(self) -> None: ...

    def close(self) -> None: ...

    async def take(self, model_dir: Path) -> None: ...

    async def add_adapter(self, policy: ServedPolicy) -> None: ...

    async def chat(self, policy: ServedPolicy, request: Any) -> ChatCompletionResponse:
        written = ChatMessage(role="assistant", content=f"{request.messages[-1:]}\nStep 1: x\nAnswer: rest (A)")
        choice = ChatCompletionResponseChoice(index=0, message=written, finish_reason="stop")
        usage = UsageInfo(prompt_tokens=2, completion_tokens=1, total_tokens=3)
        return ChatCompletionResponse(model="v0000", choices=[choice], usage=usage)

    async def complete(self, policy: ServedPolicy, request: Any) -> CompletionResponse:
        return CompletionResponse(model="v0000", choices=[], usage=UsageInfo())


class Served:
    """A service in an event loop of its own, which stands still between requests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        run = RunDirectory.create(Path(mkdtemp()) / "run", new_record({}), resume_command="")
        PolicyStore(run.policies).publish(0, base_student_dir(), parent=None, metrics={})
        engine: Any = FakeEngine
        service = Service(run, Config.model_validate({"serve": {"max_body_bytes": 200_000, "poll_s": 1e6}}), engine)
        self._loop.run_until_complete(service.start())
        app = make_app(service, [digest_of(KEY.encode())])
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://served")

    def ask(self, method: str, path: str, content: bytes = b"", key: str = KEY, **headers: bytes) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}".encode(), **headers}
        asking = self._client.request(method, path, content=content, headers=headers)
        return self._loop.run_until_complete(asking)


@lru_cache(maxsize=1)
def served() -> Served:
    return Served()


def is_told(response: httpx.Response) -> bool:
    """Whether the request was answered, or refused for a fault of its own in the form of the API."""
    if response.status_code == 200:
        return True
    error = response.json()["error"]
    return 400 <= response.status_code < 500 and bool(error["message"]) and "Traceback" not in response.text


@given(st.sampled_from(sorted(PATHS)), st.binary(max_size=200) | texts.map(plain).map(str.encode))
def test_a_body_of_any_bytes_is_answered_or_refused(path: str, body: bytes):
    assert is_told(served().ask("POST", path, body))


@given(st.sampled_from(sorted(PATHS)), json_values)
def test_a_body_of_any_json_is_answered_or_refused(path: str, body: Any):
    assert is_told(served().ask("POST", path, json.dumps(body).encode()))


@given(st.sampled_from(sorted(PATHS)), fields)
def test_a_request_with_any_fields_is_answered_or_refused(path: str, asked: dict[str, Any]):
    body = {"model": "latest", "messages": MESSAGES, "prompt": "What helps?", **asked}
    assert is_told(served().ask("POST", path, json.dumps(body).encode()))


@given(messages, st.sampled_from(["latest", "v0000", "latest:self-correct"]), st.booleans())
def test_a_conversation_of_any_messages_is_answered_or_refused(asked: list[Any], model: str, stream: bool):
    body = {"model": model, "messages": asked, "stream": stream}
    response = served().ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert is_told(response)


@given(texts.map(plain), st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]))
def test_a_model_of_any_name_is_known_or_refused(name: str, method: str):
    response = served().ask(method, f"/v1/models/{httpx.QueryParams({'x': name})['x']!r}")
    assert response.status_code in (404, 405)
    refused = served().ask("POST", "/v1/completions", json.dumps({"model": name, "prompt": "a"}).encode())
    assert refused.status_code == 404 or (refused.status_code, name) == (400, "")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=20))
def test_no_other_key_opens(key: str):
    for path in ("/v1/models", "/v1/models/latest"):
        response = served().ask("GET", path, authorization=key.encode("latin-1"))
        assert response.status_code == 401
    assert served().ask("POST", "/v1/completions", b"{", key="x").status_code == 401


@pytest.mark.parametrize("text", [*NASTY.values(), *LONG.values()], ids=[*NASTY, *LONG])
def test_any_text_may_be_asked(text: str):
    body = {"model": "latest", "messages": [{"role": "user", "content": plain(text)}]}
    response = served().ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert response.status_code == (413 if len(json.dumps(body)) > 200_000 else 200)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_transfer_params", {"prompt_token_ids": [1]}),
        ("vllm_xargs", {"a": 1}),
        ("request_id", "x"),
        ("priority", 1),
        ("prompt_embeds", "x"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}]),
        ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
    ],
)
def test_what_reaches_into_the_engine_or_the_network_is_refused_by_its_name(field: str, value: Any):
    path = "/v1/completions" if field == "prompt_embeds" else "/v1/chat/completions"
    body = {"model": "latest", "messages": MESSAGES, "prompt": "a", field: value}
    response = served().ask("POST", path, json.dumps(body).encode())
    assert (response.status_code, response.json()["error"]["param"].partition(".")[0]) == (400, field)


def test_a_chat_without_a_message_is_refused():
    body = {"model": "latest", "messages": []}
    response = served().ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("length", ["x", "-1", "99999999999999999999", "٣"])
def test_a_length_that_is_none_is_no_error_of_the_server(length: str):
    response = served().ask("POST", "/v1/completions", b"{", **{"content-length": length.encode()})
    assert response.status_code in (400, 413)
