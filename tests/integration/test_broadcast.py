"""A fleet whose engines are scripted: who sends weights to whom, and what becomes of the others when one is lost."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

import actors.fleet
import actors.pool
import actors.pulse
import actors.seat
from actors.fleet import Fleet
from actors.seat import Seat
from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.errors import UserError

pytestmark = pytest.mark.integration

OLD, NEW = (ServedPolicy(version=version, model_dir=Path("policy")) for version in (0, 1))
NCCL = EnginesConfig(num_engines=3, weight_transfer="nccl", max_restarts=1)
CHANNEL = Channel(address="10.0.0.7", port=40123, num_receivers=2, gpus_per_engine=1, tensors=())
NEVER, DIES = object(), RayActorError()


class Call:
    """In place of a reference: what the call answers, or the error that it raises, or NEVER."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class FakeRay:
    """Waits for calls without letting time pass."""

    def wait(self, calls: list[Call], **_: Any) -> tuple[list[Call], list[Call]]:
        return [call for call in calls if call.answer is not NEVER], []

    def get(self, call: Call, timeout: float | None = None) -> Any:
        if call.answer is NEVER:
            assert timeout is not None, "a wait without a limit"
            raise GetTimeoutError
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer


class ScriptedSeat(Seat):
    """Answers each call as a test has it, by the engine's name and the call's; else as an engine would."""

    calls: list[tuple[Any, ...]]
    answers: dict[tuple[str, str], Any]

    def _new_actor(self) -> Any:
        usual: dict[str, Callable[..., Any]] = {
            "start": lambda policy, *_: policy.version,
            "update": lambda policy, *_: policy.version,
            "offer_channel": lambda *_: CHANNEL,
            "send": lambda policy, *_: policy.version,
            "receive": lambda policy, *_: policy.version,
        }
        return SimpleNamespace(**{call: self._scripted(call, answer) for call, answer in usual.items()})

    def _scripted(self, call: str, usual: Callable[..., Any]) -> Any:
        def remote(*arguments: Any) -> Any:
            self.calls.append((self.name, call, *arguments))
            return Call(self.answers.get((self.name, call), usual(*arguments)))

        return SimpleNamespace(remote=remote)

    def _kill_actor(self) -> None:
        self.calls.append((self.name, "ended"))


class Scene:
    """A fleet that serves version 0, as its test finds it."""

    def __init__(self, config: EnginesConfig, num_engines: int, answers: dict[tuple[str, str], Any]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        script = {"calls": self.calls, "answers": answers}
        seat_class = type("ThisSeat", (ScriptedSeat,), script)
        self.fleet = Fleet([seat_class(name, config, None) for name in "abc"[:num_engines]], config)
        self._num_engines = num_engines
        self.serve(OLD)
        self.calls.clear()

    def serve(self, policy: ServedPolicy) -> None:
        """As a pool does: attends to the engines and replaces them until all serve."""
        for _ in range(10):
            self.fleet.grow(self._num_engines, policy)
            self.fleet.attend()

    @property
    def told(self) -> list[tuple[str, str, int, int]]:
        """Of each engine: name, state, version, deaths."""
        states = self.fleet.states
        return [(each.name, each.health.state, each.version, each.health.num_deaths) for each in states]

    def calls_of(self, name: str) -> list[str]:
        return [call[1] for call in self.calls if call[0] == name]


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (actors.fleet, actors.seat, actors.pulse):
        monkeypatch.setattr(module, "ray", FakeRay())


def test_the_first_engine_offers_a_channel_and_sends_and_each_other_is_a_receiver_with_its_number():
    scene = Scene(NCCL, 3, {})
    scene.fleet.update(NEW, ["weights"])
    assert scene.calls == [
        ("a", "offer_channel", NEW, 2, "weights"),
        ("a", "send", NEW, CHANNEL, "weights"),
        ("b", "receive", NEW, CHANNEL, 0),
        ("c", "receive", NEW, CHANNEL, 1),
    ]
    scene.serve(NEW)
    assert scene.told == [("a", "healthy", 1, 0), ("b", "healthy", 1, 0), ("c", "healthy", 1, 0)]


def test_the_first_engine_that_serves_sends_and_one_that_has_yet_to_start_does_so_with_the_new_policy():
    scene = Scene(NCCL, 3, {("a", "start"): NEVER})
    scene.fleet.update(NEW, ["weights"])
    assert [call[:2] for call in scene.calls] == [
        ("a", "ended"),
        ("a", "start"),
        ("b", "offer_channel"),
        ("b", "send"),
        ("c", "receive"),
    ]


@pytest.mark.parametrize(
    ("config", "num_engines", "blobs"),
    [(NCCL, 1, ["weights"]), (NCCL, 2, []), (EnginesConfig(num_engines=2), 2, ["weights"])],
    ids=["one engine", "adapters", "the object store"],
)
def test_weights_are_taken_from_the_object_store_by_one_engine_alone_and_where_the_config_says_so(
    config: EnginesConfig, num_engines: int, blobs: list[str]
):
    scene = Scene(config, num_engines, {})
    scene.fleet.update(NEW, blobs)
    assert scene.calls == [(name, "update", NEW, *blobs) for name in "ab"[:num_engines]]


def test_receivers_whose_sender_dies_start_again_from_the_disk_and_have_not_died():
    scene = Scene(NCCL, 3, {("a", "send"): DIES, ("b", "receive"): NEVER, ("c", "receive"): NEVER})
    scene.fleet.update(NEW, ["weights"])
    scene.serve(NEW)
    assert scene.told == [("a", "healthy", 1, 1), ("b", "healthy", 1, 0), ("c", "healthy", 1, 0)]
    assert [scene.calls_of(name) for name in "abc"] == [
        ["offer_channel", "send", "ended", "start"],
        ["receive", "ended", "start"],
        ["receive", "ended", "start"],
    ]
    assert [call[2] for call in scene.calls if call[1] == "start"] == [NEW] * 3


def test_a_receiver_that_dies_takes_along_those_that_wait_for_it_and_no_others():
    scene = Scene(NCCL, 3, {("a", "send"): NEVER, ("c", "receive"): RayTaskError("receive", "", RuntimeError("NCCL"))})
    scene.fleet.update(NEW, ["weights"])
    scene.serve(NEW)
    assert scene.told == [("a", "healthy", 1, 0), ("b", "healthy", 1, 0), ("c", "healthy", 1, 1)]
    assert scene.calls_of("b") == ["receive"]
    assert scene.calls_of("a")[-2:] == ["ended", "start"]


def test_an_engine_that_dies_takes_along_nobody_where_each_takes_the_weights_by_itself():
    scene = Scene(EnginesConfig(num_engines=3), 3, {("a", "update"): DIES, ("b", "update"): NEVER})
    scene.fleet.update(NEW, ["weights"])
    scene.serve(NEW)
    assert scene.told == [("a", "healthy", 1, 1), ("b", "stale", 1, 0), ("c", "healthy", 1, 0)]


def test_a_death_in_a_start_takes_along_nobody_who_receives():
    scene = Scene(NCCL, 3, {("a", "start"): NEVER, ("b", "send"): NEVER, ("c", "receive"): NEVER})
    scene.fleet.update(NEW, ["weights"])
    scene.fleet._seats[0]._change.answer = DIES
    scene.fleet.attend()
    assert scene.told == [("a", "dead", 1, 1), ("b", "stale", 1, 0), ("c", "stale", 1, 0)]


def test_a_broadcast_that_hangs_though_nobody_died_ends_with_the_time_for_an_update():
    config = NCCL.model_copy(update={"update_timeout_s": 1e-9})
    scene = Scene(config, 2, {("a", "send"): NEVER, ("b", "receive"): NEVER})
    scene.fleet.update(NEW, ["weights"])
    scene.serve(NEW)
    assert scene.told == [("a", "healthy", 1, 1), ("b", "healthy", 1, 1)]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (NEVER, ["offer_channel", "ended", "start"]),
        (DIES, ["offer_channel", "update", "ended", "start"]),
        (RayTaskError("offer_channel", "", OSError("no such address")), ["offer_channel", "update", "ended", "start"]),
    ],
    ids=["is silent", "is dead", "cannot listen"],
)
def test_with_a_first_engine_that_offers_nothing_the_others_take_the_weights_by_themselves(
    answer: Any, calls: list[str]
):
    scene = Scene(NCCL, 3, {("a", "offer_channel"): answer, ("a", "update"): DIES})
    scene.fleet.update(NEW, ["weights"])
    scene.serve(NEW)
    assert [each[:3] for each in scene.told] == [(name, "healthy", 1) for name in "abc"]
    assert [scene.calls_of(name) for name in "abc"] == [calls, ["update"], ["update"]]


@pytest.mark.parametrize(("hosts", "are_paths"), [(["here"], True), (["here", "there"], False), (["there"], False)])
def test_files_are_read_where_they_lie_if_all_engines_are_on_this_machine(
    hosts: list[str], are_paths: bool, tied_policies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    nodes = [{"Alive": True, "NodeManagerHostname": host} for host in hosts]
    gone = {"Alive": False, "NodeManagerHostname": "gone"}
    monkeypatch.setattr(actors.pool.ray, "nodes", lambda: [*nodes, gone])
    monkeypatch.setattr(actors.pool.ray, "put", bytes)
    monkeypatch.setattr(actors.pool.socket, "gethostname", lambda: "here")
    file = tied_policies[0] / "model.safetensors"
    assert actors.pool._handed_over(tied_policies[0]) == [file if are_paths else file.read_bytes()]


def test_a_policy_of_another_model_is_the_users_to_mend_and_no_receiver_is_asked():
    wrong = RayTaskError("offer_channel", "", UserError("policy version 1 is not of the model"))
    scene = Scene(NCCL, 3, {("a", "offer_channel"): wrong.as_instanceof_cause()})
    with pytest.raises(UserError, match=r"^policy version 1 is not of the model$"):
        scene.fleet.update(NEW, ["weights"])
    assert [call[:2] for call in scene.calls] == [("a", "offer_channel")]
    assert scene.told == [("a", "healthy", 0, 0), ("b", "healthy", 0, 0), ("c", "healthy", 0, 0)]
