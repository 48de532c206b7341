"""Requests for different weights at one engine, which here is a list of what it was told to take."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.errors import MedCriticalError
from medcritical_ray.serving.turns import Turns

OLD, NEW = (ServedPolicy(version=version, model_dir=Path(f"v{version}")) for version in (0, 1))
ADAPTER = ServedPolicy(version=2, model_dir=OLD.model_dir, adapter_dir=Path("v2"))
HOUR_S = 3600.0


class Engine:
    """Remembers what it took, and fails for directories in `broken`."""

    def __init__(self, *, turn_s: float = HOUR_S, broken: frozenset[Path] = frozenset()) -> None:
        self.taken: list[str] = []
        self.served: list[str] = []
        self._broken = broken
        self.turns = Turns(OLD.model_dir, self._take, turn_s)

    async def _take(self, model_dir: Path) -> None:
        await asyncio.sleep(0)
        if model_dir in self._broken:
            raise MedCriticalError(f"{model_dir} is broken")
        self.taken.append(model_dir.name)

    async def ask(self, name: str, policy: ServedPolicy, until: asyncio.Event | None = None) -> None:
        async with self.turns.at(lambda: policy):
            if until:
                await until.wait()
            self.served.append(f"{name} by v{policy.version}")


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def played(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), timeout=10))


def test_requests_for_the_weights_in_the_engine_go_side_by_side():
    async def scene() -> None:
        engine, end = Engine(), asyncio.Event()
        waiting = asyncio.create_task(engine.ask("first", OLD, end))
        await settled()
        await engine.ask("second", ADAPTER)
        end.set()
        await waiting
        assert engine.served == ["second by v2", "first by v0"]
        assert engine.taken == []

    played(scene)


def test_other_weights_are_taken_once_nobody_is_inside():
    async def scene() -> None:
        engine, end = Engine(), asyncio.Event()
        inside = asyncio.create_task(engine.ask("first", OLD, end))
        await settled()
        other = asyncio.create_task(engine.ask("second", NEW))
        await settled()
        assert (engine.taken, engine.served) == ([], [])
        end.set()
        await asyncio.gather(inside, other)
        assert (engine.taken, engine.served) == (["v1"], ["first by v0", "second by v1"])

    played(scene)


@pytest.mark.parametrize(("turn_s", "order"), [(HOUR_S, ["c", "a", "b"]), (0.0, ["a", "b", "c"])])
def test_those_who_wait_for_others_are_passed_for_a_turn_and_no_longer(turn_s: float, order: list[str]):
    async def scene() -> None:
        engine, end = Engine(turn_s=turn_s), asyncio.Event()
        tasks = [asyncio.create_task(engine.ask("a", OLD, end))]
        await settled()
        for name, policy in (("b", NEW), ("c", OLD)):
            tasks.append(asyncio.create_task(engine.ask(name, policy)))
            await settled()
        end.set()
        await asyncio.gather(*tasks)
        assert [served[0] for served in engine.served] == order

    played(scene)


def test_everybody_gets_a_turn_however_short_it_is():
    async def scene() -> None:
        engine = Engine(turn_s=0.0)
        await asyncio.gather(*(engine.ask(str(n), (OLD, NEW)[n % 2]) for n in range(20)))
        assert sorted(engine.served) == sorted(f"{n} by v{n % 2}" for n in range(20))

    played(scene)


def test_who_waits_for_the_latest_gets_what_is_the_latest_then():
    async def scene() -> None:
        engine, end, latest = Engine(), asyncio.Event(), [OLD]

        async def ask() -> int:
            async with engine.turns.at(lambda: latest[0]) as policy:
                return policy.version

        async def take_over() -> None:
            async with engine.turns.at(lambda: NEW, at_once=True):
                latest[0] = NEW

        inside = asyncio.create_task(engine.ask("old", OLD, end))
        await settled()
        follower = asyncio.create_task(take_over())
        await settled()
        asked = [asyncio.create_task(ask()) for _ in range(3)]
        await settled()
        end.set()
        await asyncio.gather(inside, follower)
        assert await asyncio.gather(*asked) == [1, 1, 1]
        assert engine.taken == ["v1"]

    played(scene)


def test_weights_that_cannot_be_taken_fail_those_who_want_them_alone():
    async def scene() -> None:
        engine = Engine(broken=frozenset({NEW.model_dir}))
        with pytest.raises(MedCriticalError, match="v1 is broken"):
            await engine.ask("first", NEW)
        await engine.ask("second", OLD)
        assert (engine.taken, engine.served) == (["v0"], ["second by v0"])

    played(scene)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_request_that_is_cancelled_holds_nobody_up(place: str):
    async def scene() -> None:
        engine, never = Engine(), asyncio.Event()
        inside = asyncio.create_task(engine.ask("inside", OLD, never))
        await settled()
        outside = asyncio.create_task(engine.ask("outside", NEW, never))
        await settled()
        {"inside": inside, "outside": outside}[place].cancel()
        await settled()
        assert engine.taken == (["v1"] if place == "inside" else [])
        inside.cancel()
        outside.cancel()
        await settled()
        await engine.ask("last", NEW)
        assert engine.served == ["last by v1"]

    played(scene)
