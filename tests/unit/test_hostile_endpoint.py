"""An endpoint that sends anything: a response that can be kept, or a reason why there is none."""

import asyncio
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from hostile import json_values, plain, questions, texts
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.config import EndpointConfig
from medcritical_ray.errors import UserError
from medcritical_ray.questions import stem_hash
from medcritical_ray.records import Question
from medcritical_ray.teaching.distilled import LEDGER, TEMPLATES, Distilled, read_charges, templates_of, write_distilled
from medcritical_ray.teaching.endpoint.client import EndpointClient, NotAnswered, retry_after_s
from medcritical_ray.teaching.endpoint.responses import Response, ResponseStore

KEY = "sk-0123456789abcdef"
ENDPOINT = EndpointConfig(base_url="http://big.example/v1", model="big", api_key_variable="THE_KEY", max_retries=0)

WAITS = ["nan", "inf", "-1", "1e999", "Mon, 01 Jan 0001 00:00:00 -0000", "Fri, 31 Dec 9999 23:59:59 +0000"]

statuses = st.sampled_from([200, 200, 200, 204, 301, 400, 401, 403, 404, 408, 409, 418, 422, 429, 500, 503, 599])
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "location", "x-request-id", "x-should-retry"]),
    header_values
    | st.sampled_from(
        ["application/json", "text/html", "nan", "inf", "-1", "1e999", "Mon, 01 Jan 0001 00:00:00 -0000"]
    ),
    max_size=2,
)
usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens"]), json_values | st.integers(), max_size=2
)
choices = st.lists(
    st.fixed_dictionaries(
        {"message": st.fixed_dictionaries({"content": texts | json_values}) | json_values},
        optional={"finish_reason": st.sampled_from(["stop", "length", None]) | json_values},
    )
    | json_values,
    max_size=2,
)
bodies = st.fixed_dictionaries(
    {"choices": choices | json_values}, optional={"usage": usages | json_values, "error": json_values}
)
contents = st.one_of(
    bodies.map(json.dumps).map(str.encode),
    json_values.map(json.dumps).map(str.encode),
    st.binary(max_size=50),
    st.just(b"[" * 20_000),
)


def ask(status: int, told: dict[str, str], content: bytes, directory: Path) -> Response | str:
    """The response, or the message of whatever there is instead."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=told, content=content)

    async def asked() -> Response:
        store = ResponseStore(directory / "responses.sqlite")
        client = EndpointClient(ENDPOINT, store, "templates")
        transport = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        client._client = client._client.with_options(http_client=transport)
        try:
            response = await client.ask([{"role": "user", "content": "Which?"}])
            assert await client.ask([{"role": "user", "content": "Which?"}]) == response  # as it was kept
            return response
        finally:
            store.close()
            await transport.aclose()

    try:
        return asyncio.run(asked())
    except (NotAnswered, UserError) as error:
        return str(error)


@given(statuses, headers, contents)
def test_whatever_an_endpoint_sends_is_kept_or_has_a_reason(status: int, told: dict[str, str], content: bytes):
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as directory:
        patch.setenv("THE_KEY", KEY)
        answer = ask(status, told, content, Path(directory))
    assert isinstance(answer, Response) or answer
    if isinstance(answer, Response):
        answer.text.encode()
        assert min(answer.prompt_tokens, answer.completion_tokens) >= 0


@given(header_values | st.text(max_size=30) | st.sampled_from(WAITS))
def test_any_header_asks_for_some_seconds(header: str):
    assert retry_after_s(header) >= 0


@given(st.lists(st.tuples(questions(), texts.map(plain)), min_size=1, max_size=3, unique_by=lambda each: each[0].id))
def test_templates_of_any_text_are_written_and_read_back_the_same(taught: list[tuple[Question, str]]):
    results = [
        Distilled(question_id=each.id, stem_hash=stem_hash(each.stem), template=template, reason=None, num_asked=1)
        for each, template in taught
    ]
    with TemporaryDirectory() as directory:
        write_distilled(Path(directory), results)
        read = templates_of([question for question, _ in taught], Path(directory))
    assert read == {question.id: template for question, template in taught}


rows = st.fixed_dictionaries({"question_id": texts | json_values, "template": texts | json_values}) | json_values
lines = rows.map(json.dumps) | texts.map(plain)


@given(st.lists(lines, max_size=3).map("\n".join), st.none() | lines)
def test_a_directory_of_any_templates_is_read_or_refused(templates: str, ledger: str | None):
    with TemporaryDirectory() as directory:
        (Path(directory) / TEMPLATES).write_text(templates)
        if ledger is not None:
            (Path(directory) / LEDGER).write_text(ledger)
        for read in (partial(templates_of, []), read_charges):
            with suppress(UserError):
                read(Path(directory))
