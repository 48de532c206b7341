"""Requests for different full weights take turns at one engine, which holds one of them at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from medcritical_ray.engines.served import ServedPolicy

Wanted = Callable[[], ServedPolicy]
"""What a request wants, asked whenever it might go on: which policy is the latest may change while it waits. It must
not fail: others wait with it."""


@dataclass(frozen=True, eq=False, slots=True)
class Waiter:
    """A request that waits since `since`, in seconds of a steady clock; one with `at_once` lets nobody pass."""

    wanted: Wanted
    since: float
    at_once: bool
    admitted: "asyncio.Future[ServedPolicy]"


def is_turn_over(others: Sequence[Waiter], began: float, now: float, turn_s: float) -> bool:
    """Whether one of those who want other weights has waited for `turn_s` of the turn that began at `began`."""
    return any(other.at_once or now - max(other.since, began) >= turn_s for other in others)


class Turns:
    """Lets requests in that want the weights which the engine has, and has it take others once nobody is inside.

    Whoever waits for other weights lets those who want the current ones pass for `turn_s` at most. So each request
    sees one set of weights from its beginning to its end, and everybody gets their turn. `take` makes the engine hold
    the weights of a directory; if it fails, those who wait for these weights get its error.
    """

    def __init__(self, current: Path, take: Callable[[Path], Awaitable[None]], turn_s: float) -> None:
        self._current: Path | None = current
        self._take = take
        self._turn_s = turn_s
        self._began = time.monotonic()
        self._num_inside = 0
        self._waiters: list[Waiter] = []
        self._taking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def at(self, wanted: Wanted, *, at_once: bool = False) -> AsyncIterator[ServedPolicy]:
        """The policy, whose weights stay in the engine until the block ends."""
        policy = await self._enter(wanted, at_once=at_once)
        try:
            yield policy
        finally:
            self._leave()

    async def _enter(self, wanted: Wanted, *, at_once: bool) -> ServedPolicy:
        admitted = asyncio.get_running_loop().create_future()
        self._waiters.append(Waiter(wanted, time.monotonic(), at_once, admitted))
        self._go_on()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled() and not admitted.exception():
                self._leave()
            self._go_on()
            raise

    def _leave(self) -> None:
        self._num_inside -= 1
        self._go_on()

    def _go_on(self) -> None:
        if self._taking:
            return
        self._waiters = [waiter for waiter in self._waiters if not waiter.admitted.done()]
        others = [waiter for waiter in self._waiters if waiter.wanted().model_dir != self._current]
        if not is_turn_over(others, self._began, time.monotonic(), self._turn_s):
            self._admit()
        if others and not self._num_inside:
            first = min(others, key=lambda waiter: (not waiter.at_once, waiter.since))
            self._taking = asyncio.create_task(self._change(first.wanted().model_dir))

    def _admit(self) -> None:
        for waiter in self._waiting_for(self._current):
            self._num_inside += 1
            waiter.admitted.set_result(waiter.wanted())

    def _waiting_for(self, model_dir: Path | None) -> list[Waiter]:
        return [each for each in self._waiters if not each.admitted.done() and each.wanted().model_dir == model_dir]

    async def _change(self, model_dir: Path) -> None:
        self._current = None
        try:
            await self._take(model_dir)
        except Exception as error:  # noqa: BLE001 (it goes to those who wait for it)
            for waiter in self._waiting_for(model_dir):
                waiter.admitted.set_exception(error)
        else:
            self._current, self._began = model_dir, time.monotonic()
            self._admit()
        finally:
            self._taking = None
        self._go_on()
