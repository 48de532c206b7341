"""`medcritical serve` as a user runs it, asked by the clients that people have: openai and lm-evaluation-harness."""

import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from jobs.bench_serve import make_run
from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port
from medcritical_ray.chat import load_tokenizer, prompt_token_ids
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.clinic.exam import make_questions
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config_files import load_config
from medcritical_ray.corrections import read_correction
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.serving.tokenizer import write_tokenizer

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "demo.toml"
KEY = "a-key-of-this-test"
PATIENCE_S = 300
MAX_TOKENS = 110
PROMPTS = [
    solve_prompt(question.unkeyed()) for question in make_questions(load_world(), "test", 24, seed=0, difficulty=3)
]
VERSIONS = ("v0000", "v0001", "v0002")


class Server(NamedTuple):
    """A served run of three versions, and what version 2 wrote when the engine had just started with it."""

    run: RunDirectory
    url: str
    client: openai.OpenAI
    written_by_fresh: list[str]


def texts(client: openai.OpenAI, model: str) -> list[str]:
    return [answer.choices[0].message.content for answer in answers(client, model)]


def answers(client: openai.OpenAI, model: str) -> list[Any]:
    """Greedy answers to all prompts, asked side by side."""

    def ask(prompt: str) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=MAX_TOKENS)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, PROMPTS))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It ends by itself, and cleanly, when it is told to."""
    directory = tmp_path_factory.mktemp("serving")
    config = load_config(CONFIG, ["engines.dtype=float32"])
    run = make_run(directory / "served-run", base_student_dir(), config, num_versions=3, noise=0.05)
    run.finish_iteration(0, {"adopted_version": 2})
    (directory / "keys").write_text(f"another-key\n{KEY}\n")
    port = free_port()
    settings = ("serve.poll_s=0.2", "serve.max_body_bytes=65536", "engines.kv_cache_gib=0.25")
    words = ["--run", run.path, "--port", port, "--api-key-file", directory / "keys"]
    words += [word for setting in settings for word in ("--set", setting)]
    log = directory / "server.log"
    with running(
        [sys.executable, "-m", "jobs.serve", *map(str, words)],
        partial(urllib.request.urlopen, f"http://127.0.0.1:{port}/ready", timeout=5),
        log,
        timeout_s=PATIENCE_S,
        environment={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    ) as process:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60)
        yield Server(run, f"http://127.0.0.1:{port}", client, texts(client, "latest"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text()[-3000:]
        assert KEY not in log.read_text()


def test_every_policy_is_listed_and_the_latest(server: Server):
    models = server.client.models.list().data
    listed = [*VERSIONS, "latest"]
    assert [model.id for model in models] == [*listed, *(f"{name}:self-correct" for name in listed)]
    assert server.client.models.retrieve("v0001").id == "v0001"


def test_a_policy_is_asked_as_in_the_run_token_for_token(server: Server):
    tokenizer = load_tokenizer(base_student_dir())
    expected = [len(tokens) for tokens in prompt_token_ids(tokenizer, PROMPTS)]
    assert [answer.usage.prompt_tokens for answer in answers(server.client, "v0000")] == expected
    prompt = prompt_token_ids(tokenizer, PROMPTS[:1])[0]
    from_tokens = server.client.completions.create(model="v0000", prompt=prompt, temperature=0, max_tokens=MAX_TOKENS)
    assert from_tokens.choices[0].text == texts(server.client, "v0000")[0]


def test_an_engine_that_took_other_weights_writes_what_fresh_ones_write(server: Server, student_server: str):
    fresh = openai.OpenAI(base_url=student_server, api_key="none")
    written = {version: texts(server.client, version) for version in VERSIONS}
    assert written["v0000"] == texts(fresh, "student")
    assert written["v0002"] == server.written_by_fresh
    assert len({tuple(each) for each in written.values()}) == 3


def test_a_stream_has_the_text_of_the_answer(server: Server):
    messages: Any = [{"role": "user", "content": PROMPTS[0]}]
    asked: dict[str, Any] = {"model": "v0001", "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
    chunks = list(server.client.chat.completions.create(**asked, stream=True))
    answer = server.client.chat.completions.create(**asked)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert {chunk.model for chunk in chunks} == {"v0001"}


def test_a_self_corrected_answer_comes_with_the_first_one_and_the_correction(server: Server):
    def ask(prompt: str) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return server.client.chat.completions.create(model="v0000:self-correct", messages=messages, temperature=0)

    with ThreadPoolExecutor(8) as pool:
        corrected = list(pool.map(ask, PROMPTS))
    first = texts(server.client, "v0000")
    for answer, text in zip(corrected, first, strict=True):
        way, final = answer.self_correction, answer.choices[0].message.content
        assert way["first_answer"] == text
        correction = read_correction(text, way["correction"] or "")
        assert way["outcome"] in ("unreadable answer", "no room") or (correction is not None) == (
            way["outcome"] in ("kept", "corrected")
        )
        assert final == (correction.trace if way["outcome"] == "corrected" else text)
    assert any(answer.self_correction["correction"] for answer in corrected)


def test_the_harness_sees_the_likelihoods_that_it_sees_at_vllm_s_own_server(
    server: Server, student_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_tokenizer(base_student_dir(), tmp_path)
    pairs = [(prompt + "\n", "Thought: name the condition.") for prompt in PROMPTS[:8]]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]

    def likelihoods(base_url: str, model: str) -> list[tuple[float, bool]]:
        asked = {"base_url": base_url, "model": model, "num_concurrent": 4, "tokenizer": str(tmp_path)}
        harness = get_model("local-completions").create_from_arg_obj({**asked, "tokenizer_backend": "huggingface"})
        return harness.loglikelihood(requests, disable_tqdm=True)

    ours = likelihoods(f"{server.url}/v1/completions", "v0000")
    theirs = likelihoods(f"{student_server}/completions", "student")
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "v0009"}, 404, "model", "model_not_found"),
        ({"model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"model": None}, 400, "model", "invalid_value"),
        ({"messages": "hello"}, 400, "messages", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"max_tokens": 5000}, 400, "max_tokens", "invalid_value"),
        ({"n": 65}, 400, "n", "invalid_value"),
        ({"messages": [{"role": "user", "content": PROMPTS[0] * 20}]}, 400, "messages", "context_length_exceeded"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "look_up"}}]}, 400, "tools", "invalid_value"),
        ({"messages": [{"role": "user", "content": PROMPTS[0] * 400}]}, 413, None, "body_too_large"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_the_form_of_the_api(
    fields: dict[str, Any], status: int, param: str | None, code: str, server: Server
):
    plain = {"model": "latest", "messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 4}
    with pytest.raises(openai.APIStatusError) as caught:
        server.client.post("/chat/completions", body={**plain, **fields}, cast_to=object)
    error = caught.value
    assert (error.status_code, error.param, error.code) == (status, param, code), error.message


def test_a_body_that_is_no_json_is_refused(server: Server):
    request = urllib.request.Request(f"{server.url}/v1/completions", b"{", {"Authorization": f"Bearer {KEY}"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert (caught.value.code, b'"code":"invalid_json"' in caught.value.read()) == (400, True)


def test_nobody_asks_without_a_key(server: Server):
    with pytest.raises(openai.AuthenticationError) as caught:
        texts(openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0), "latest")
    assert (caught.value.code, KEY in caught.value.message) == ("invalid_api_key", False)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.url}/v1/models", timeout=30)


def test_a_newly_adopted_policy_is_taken_over_while_requests_are_in_flight(server: Server):
    """Each answer is that of the version that it names, and no request fails."""
    expected = {version: texts(server.client, version) for version in VERSIONS}
    ended = threading.Event()
    answered: list[Any] = []

    def ask_on() -> None:
        while not ended.is_set():
            answered.extend(answers(server.client, "latest"))

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask_on) for _ in range(3)]
        try:
            for iteration, version in enumerate([0, 1, 2, 1], start=1):
                before = len(answered)
                server.run.finish_iteration(iteration, {"adopted_version": version})
                await_answer_of(f"v{version:04d}", lambda start=before: answered[start:])
        finally:
            ended.set()
    for client in clients:
        client.result()
    for number, answer in enumerate(answered):
        assert answer.choices[0].message.content == expected[answer.model][number % len(PROMPTS)]


def await_answer_of(model: str, answered: Callable[[], Sequence[Any]]) -> None:
    deadline = time.monotonic() + 60
    while model not in {answer.model for answer in answered()}:
        assert time.monotonic() < deadline, f"nobody was answered by {model} in 60 s"
        time.sleep(0.1)
