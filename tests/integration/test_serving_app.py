"""The served API over an engine that is slow, stuck, full or broken: whatever it does, a request ends, and says how."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.pruning import prune
from medcritical_ray.run.record import new_record
from medcritical_ray.serving.app import make_app
from medcritical_ray.serving.refusals import Refusal, Refused
from medcritical_ray.serving.service import Service

pytestmark = pytest.mark.integration

ASKED = {"model": "latest", "messages": [{"role": "user", "content": "What helps?"}]}
DONE = "data: [DONE]"


class Answer:
    def __init__(self, text: str) -> None:
        self._text = text

    def model_dump_json(self) -> str:
        return json.dumps({"text": self._text})


class FakeEngine:
    """Does what `behaviour` says with a request, and cannot take version 1."""

    behaviour: Callable[[], Awaitable[Any]]
    has_chat_template = True
    is_alive = True

    def __init__(self, *arguments: Any) -> None:
        self.num_inside = 0
        self.take_s = 0.0
        self.taken: list[str] = []

    async def open(self) -> None: ...

    async def probe(self) -> None: ...

    def close(self) -> None: ...

    async def add_adapter(self, policy: ServedPolicy) -> None: ...

    async def take(self, model_dir: Path) -> None:
        self.taken.append(model_dir.name)
        await asyncio.sleep(self.take_s)
        if model_dir.name == "v0001":
            raise MedCriticalError("damaged")

    async def chat(self, policy: ServedPolicy, request: Any) -> Any:
        self.num_inside += 1
        try:
            return await self.behaviour()
        finally:
            self.num_inside -= 1


async def answers() -> Answer:
    return Answer("rest")


async def hangs() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_and_makes_light_of_it() -> Answer:
    """As vLLM does with a request that is cancelled."""
    try:
        return await hangs()
    except asyncio.CancelledError:
        return Answer("client disconnected")


async def hangs_and_calls_it_a_refusal() -> Answer:
    try:
        return await hangs()
    except asyncio.CancelledError:
        raise Refused(Refusal(status=400, message="Client disconnected")) from None


async def fails() -> Answer:
    raise ZeroDivisionError("secret of the engine")


async def refuses_with_500() -> Answer:
    """As vLLM does when a request fails inside its engine."""
    raise Refused(Refusal(status=500, message="secret of the engine"))


async def streams_and_hangs() -> AsyncIterator[str]:
    async def chunks() -> AsyncIterator[str]:
        yield "data: {}\n\n"
        await asyncio.Event().wait()

    return chunks()


async def streams_and_fails() -> AsyncIterator[str]:
    async def chunks() -> AsyncIterator[str]:
        yield "data: {}\n\n"
        raise ZeroDivisionError("secret of the engine")

    return chunks()


@pytest.fixture(scope="module", autouse=True)
def protocol() -> None:
    """Imported before any clock runs."""
    import vllm.entrypoints.openai.chat_completion.protocol
    import vllm.entrypoints.openai.completion.protocol  # noqa: F401


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run", new_record({}), resume_command="")
    for version in range(3):
        PolicyStore(run.policies).publish(version, base_student_dir(), parent=None, metrics={})
    return run


def names_of(*names: str) -> list[str]:
    """As they are listed: those whose answers are corrected stand behind."""
    return [*names, *(f"{name}:self-correct" for name in names)]


Scene = Callable[[httpx.AsyncClient, FakeEngine], Awaitable[None]]


def play(scene: Scene, run: RunDirectory, **limits: Any) -> None:
    """A scene with a client and the engine of a service, within a minute."""
    engines: list[FakeEngine] = []

    def start_engine(*arguments: Any) -> Any:
        engines.append(FakeEngine(*arguments))
        return engines[0]

    async def all_of_it() -> None:
        config = Config.model_validate({"serve": {"request_timeout_s": 1.0, "poll_s": 0.05, **limits}})
        service = Service(run, config, start_engine)
        await service.start()
        transport = httpx.ASGITransport(make_app(service, []), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            await scene(client, engines[0])
        service.close()

    asyncio.run(asyncio.wait_for(all_of_it(), timeout=60))


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**ASKED, **fields})


@pytest.mark.parametrize("behaviour", [hangs, hangs_and_makes_light_of_it, hangs_and_calls_it_a_refusal])
def test_a_request_that_takes_too_long_ends_and_leaves_its_place(behaviour: Any, run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = behaviour
        late = await ask(client)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert engine.num_inside == 0
        engine.behaviour = answers
        assert (await ask(client, model="v0002")).json() == {"text": "rest"}

    play(scene, run)


def test_who_comes_when_it_is_full_is_told_to_come_back(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = hangs
        first = asyncio.create_task(ask(client))
        await until(lambda: engine.num_inside == 1)
        second, ready = await ask(client), await client.get("/ready")
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert second.json()["error"]["code"] == "overloaded"
        assert ready.status_code == 503
        await first
        assert (await client.get("/ready")).status_code == 200

    play(scene, run, max_requests=1, request_timeout_s=3.0)


def test_an_engine_that_is_dead_is_not_ready_but_the_server_lives(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.is_alive = False
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 503
        refused = await ask(client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")

    play(scene, run)


@pytest.mark.parametrize(("behaviour", "code"), [(streams_and_hangs, "timeout"), (streams_and_fails, "internal_error")])
def test_a_stream_that_breaks_says_so_and_ends(behaviour: Any, code: str, run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = behaviour
        events = (await ask(client, stream=True)).text.split("\n\n")
        assert events[0] == "data: {}"
        assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == code
        assert events[2:] == [DONE, ""]

    play(scene, run)


def test_an_error_that_nobody_meant_says_nothing_of_the_inside(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = fails
        response = await ask(client)
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
        assert "secret" not in response.text

    play(scene, run)


def test_a_policy_that_cannot_be_taken_over_leaves_the_latest_as_it_is(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = answers
        run.finish_iteration(0, {"adopted_version": 1})
        await until(lambda: "v0001" in engine.taken)
        assert (await client.get("/v1/models/latest")).json()["root"] == "v0000"
        assert (await ask(client)).json() == {"text": "rest"}
        assert (await ask(client, model="v0001")).status_code == 500
        run.finish_iteration(1, {"adopted_version": 2})
        await until(lambda: "v0002" in engine.taken)
        assert (await client.get("/v1/models/latest:self-correct")).json()["root"] == "v0002"

    play(scene, run)


def test_a_policy_that_is_adopted_while_its_files_are_away_is_taken_over_once_they_are_back(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
):
    weights = run.policies / "v0002" / "model.safetensors"

    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        weights.rename(run.path / "away")
        run.finish_iteration(0, {"adopted_version": 2})
        await until(lambda: "no weights: " in caplog.text)
        (run.path / "away").rename(weights)
        await until(lambda: "v0002" in engine.taken)
        assert (await client.get("/v1/models/latest")).json()["root"] == "v0002"

    play(scene, run)


def test_a_policy_that_cannot_be_read_is_not_listed_and_hides_no_other(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        (run.policies / "v0001" / "manifest.json").write_text("cut o")
        listed = (await client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in listed] == names_of("v0000", "v0002", "latest")
        card = await client.get("/v1/models/v0001")
        assert (card.status_code, card.json()["error"]["param"]) == (500, "model")
        assert (await client.get("/v1/models/v0002")).json() == listed[1]

    play(scene, run)


def test_a_service_that_does_not_follow_its_run_any_more_is_not_healthy(run: RunDirectory):
    class NoAdapters(FakeEngine):
        async def add_adapter(self, policy: ServedPolicy) -> None:
            if policy.version:
                raise ZeroDivisionError("nobody meant this")

    async def scene() -> None:
        service = Service(run, Config.model_validate({"serve": {"poll_s": 0.01}}), NoAdapters)
        await service.start()
        service.check_health()
        run.finish_iteration(0, {"adopted_version": 2})
        await until(service._tasks[0].done)
        with pytest.raises(ZeroDivisionError, match="nobody meant this"):
            service.check_health()
        service.close()

    asyncio.run(asyncio.wait_for(scene(), timeout=60))


def test_replicas_find_the_file_of_keys_and_ask_for_the_nodes_and_resources_of_engines():
    from actors.serving import make_application

    engines = {"num_cpus": 2, "num_gpus": 1, "labels": {"role": "engine"}}
    replicas = make_application(
        Path("/run"), Config.model_validate({"engines": engines}), Path("keys")
    )._bound_deployment
    assert replicas.init_args[2] == Path.cwd() / "keys"
    assert replicas.ray_actor_options == {"num_cpus": 2, "num_gpus": 1, "label_selector": {"role": "engine"}}


@pytest.mark.parametrize("while_taking", [False, True])
def test_a_policy_whose_files_are_away_fails_those_who_name_it_alone_and_until_they_are_back(
    while_taking: bool, run: RunDirectory
):
    weights = run.policies / "v0002" / "model.safetensors"

    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour, engine.take_s = answers, 0.2
        weights.rename(run.path / "away")
        other = asyncio.create_task(ask(client, model="v0001" if while_taking else "latest"))
        await until(lambda: bool(engine.taken) or not while_taking)
        asked = asyncio.create_task(ask(client, model="v0002"))
        assert (await asked).json()["error"]["message"] == "v0002 cannot be loaded: the server's log says why."
        assert (await other).status_code == (500 if while_taking else 200)
        assert (await ask(client)).json() == {"text": "rest"}
        (run.path / "away").rename(weights)
        assert (await ask(client, model="v0002")).json() == {"text": "rest"}

    play(scene, run, request_timeout_s=5.0)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)])
def test_what_is_not_there_is_refused_in_the_form_of_the_api(method: str, path: str, status: int, run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        response = await client.request(method, path)
        assert (response.status_code, response.json()["error"]["type"]) == (status, "invalid_request_error")

    play(scene, run)


def test_only_chats_are_corrected(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        response = await client.post("/v1/completions", json={"model": "latest:self-correct", "prompt": "a"})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "model")

    play(scene, run)


def test_a_pruned_policy_is_refused_and_not_listed_and_the_others_are_served(run: RunDirectory):
    prune(run.policies / "v0001")

    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = answers
        refused = await ask(client, model="v0001")
        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == (
            "The model 'v0001' was pruned, as run.keep_policies has it: /v1/models lists v0000, v0002, latest, "
            "and each of these with :self-correct behind it."
        )
        assert (await ask(client, model="v0002")).status_code == 200

    play(scene, run)


def test_a_latest_policy_that_is_pruned_under_the_server_is_still_listed_and_answers(run: RunDirectory):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = answers
        prune(run.policies / "v0000")
        listed = (await client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in listed] == names_of("v0001", "v0002", "latest")
        assert (await ask(client)).status_code == 200

    play(scene, run)


def test_no_server_starts_with_damaged_weights(run: RunDirectory):
    weights = run.policies / "v0000" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # the file has another name, in the package
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"v0000/model\.safetensors is damaged"):
        Service(run, Config(), FakeEngine)


@pytest.mark.parametrize("is_silent", [False, True], ids=["dead", "silent"])
def test_the_death_of_an_engine_is_told_at_once(is_silent: bool, run: RunDirectory):
    deaths: list[str] = []

    class Engine(FakeEngine):
        async def probe(self) -> None:
            self.is_alive = not is_silent

    async def scene() -> None:
        config = Config.model_validate({"serve": {"poll_s": 0.05}})
        service = Service(run, config, Engine, on_death=lambda: deaths.append("told"))
        await service.start()
        await asyncio.sleep(0.5)
        if not is_silent:
            assert deaths == []
            service._engine.is_alive = False
        await until(lambda: bool(deaths))
        service.close()

    asyncio.run(asyncio.wait_for(scene(), timeout=60))
    assert deaths == ["told"]


@pytest.mark.parametrize("behaviour", [fails, refuses_with_500])
def test_what_the_server_fails_at_is_logged_with_its_cause(
    behaviour: Callable[[], Awaitable[Any]], run: RunDirectory, caplog: pytest.LogCaptureFixture
):
    async def scene(client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.behaviour = behaviour
        assert (await ask(client)).status_code == 500
        assert "POST /v1/chat/completions failed: " in caplog.text
        assert "secret of the engine" in caplog.text

    play(scene, run)
