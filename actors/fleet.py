"""The engines of a pool: who is there, who is replaced, and when too few are left."""

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors.seat import Answer, RequestBlock, Seat
from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.fleet import (
    EngineState,
    Note,
    is_misconfigured,
    note_news,
    num_left,
    num_started,
    told,
    unnoted,
)
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout

_LOOK_S = 0.25
"""Seconds between two looks at what engines do not answer: those of the other role may wait for their turn."""


class Fleet:
    """Keeps as many engines as it is told to, of as many as there are seats, and gives back what a lost engine had in
    work. `note` is told of every death, restart and retirement.
    """

    def __init__(self, seats: list[Seat], config: EnginesConfig) -> None:
        self._seats = seats
        self._config = config
        self._num_required = min(len(seats), config.required_engines)
        self._wait_for_each_other = False  # those that take a new version
        self.note: Note = unnoted

    @property
    def members(self) -> list[Seat]:
        """Those that hold an engine."""
        return [seat for seat in self._seats if seat.health.is_there]

    @property
    def states(self) -> list[EngineState]:
        """Of every seat."""
        return [seat.state for seat in self._seats]

    @property
    def num_serving(self) -> int:
        """Engines that have confirmed the current version."""
        return sum(seat.health.is_serving for seat in self._seats)

    @property
    def num_in_flight(self) -> int:
        """Blocks that engines work on."""
        return sum(seat.num_in_flight for seat in self._seats)

    def is_awaited(self, least: int) -> bool:
        """Whether, of `least` engines, one has yet to start for the first time or to take a new version, or those that
        serve are fewer than are required. Others that start come when they come."""
        is_late = any(seat.is_new or seat.health.state == "stale" for seat in self._seats)
        return is_late or self.num_serving < min(self._num_required, least)

    def grow(self, num_engines: int, policy: ServedPolicy) -> None:
        """Starts engines until there are that many, or all that are not retired."""
        for seat in self._seats:
            if seat.health.state in ("absent", "dead") and len(self.members) < num_engines:
                seat.start(policy)

    def shrink(self, num_engines: int, *, but_not: Callable[[Seat], bool] = lambda _: False) -> None:
        """Ends as many engines as are too many, those that do not serve first."""
        for seat in sorted(self.members, key=lambda seat: seat.health.is_serving):
            if len(self.members) > num_engines and not but_not(seat):
                seat.end()

    def update(self, policy: ServedPolicy, blobs: list[Any]) -> None:
        """Has every engine serve the policy; those that have yet to start do so with it. `blobs` are its weight files,
        if these are to be taken: paths, or references to their contents.

        Where one engine sends them to the others, it waits for that one's offer, `engines.update_timeout_s` at most.
        Raises UserError then if the policy is of another model.
        """
        serving = [seat for seat in self.members if seat.health.is_serving]
        for seat in self.members:
            if seat not in serving:
                seat.end()
                seat.start(policy)
        channel = self._channel(serving, policy, blobs)
        self._wait_for_each_other = channel is not None
        if channel:
            serving[0].send(policy, blobs, channel)
            for receiver, seat in enumerate(serving[1:]):
                seat.receive(policy, channel, receiver)
        else:
            for seat in serving:
                if seat.health.is_there:
                    seat.update(policy, blobs)

    @property
    def calls(self) -> list[Any]:
        """References to what engines have been asked and not answered yet."""
        return [ref for seat in self.members for ref in seat.refs]

    def attend(self, ended: set[Any] | None = None) -> tuple[list[Answer], list[RequestBlock]]:
        """Waits for the next answer, or for a moment; what is answered, and what is lost with the engines that failed.
        Whoever has waited already, perhaps for other fleets' engines, too, says which calls have `ended`.

        Raises UserError from an engine; WaitTimeout if one does not start in time and those that did are too few;
        RunFailed if those that are left are too few, or if none would start.
        """
        members = self.members
        if ended is None:
            ended = wait_for(self.calls)
        answers: list[Answer] = []
        lost: list[RequestBlock] = []
        is_one_missing = False
        for seat in members:
            before = seat.state
            answers += seat.take(ended)
            seat.look()
            note_news(before, seat.state, self.note)
            if not seat.health.is_there:
                lost += seat.end()
                self._check_enough(seat)
                is_one_missing |= before.health.state == "stale"
        if is_one_missing and self._wait_for_each_other:
            self._end_those_that_wait()
        return answers, lost

    def excuse(self) -> None:
        """Nobody will take the answers to what engines work on."""
        for seat in self.members:
            seat.excuse()

    def _channel(self, serving: list[Seat], policy: ServedPolicy, blobs: list[Any]) -> Channel | None:
        """The channel through which the first engine sends the weights to the others, if that is how they travel.

        None, too, if that engine does not answer: all are then asked to take them from the object store, by which its
        seat finds out what became of it.
        """
        if self._config.weight_transfer != "nccl" or not blobs or len(serving) < 2:
            return None
        offered = serving[0].offer_channel(policy, blobs, len(serving) - 1)
        try:
            channel: Channel = ray.get(offered, timeout=self._config.update_timeout_s)
        except UserError as error:
            raise getattr(error, "cause", error) from None
        except GetTimeoutError:
            serving[0].end()  # an update would wait behind its offer
            return None
        except RayError:
            return None
        return channel

    def _end_those_that_wait(self) -> None:
        """Ends the engines that have not confirmed what one of them sends to all: with one missing, the others wait for
        it in NCCL for ever. They start again, from the disk, and have not died: it was not their doing."""
        for seat in self.members:
            if seat.health.state == "stale":
                seat.end()

    def _check_enough(self, lost: Seat) -> None:
        healths = [seat.health for seat in self._seats]
        if is_misconfigured(healths):
            raise RunFailed(f"{lost.name} did not start: {lost.health.cause}")
        if num_left(healths) < self._num_required:
            raise RunFailed(
                f"{num_left(healths)} of {len(healths)} engines are left, and {self._num_required} must be: "
                f"{told(self.states)}; see to their machines (engines.max_restarts, engines.required_engines)"
            )
        if lost.health.state == "absent" and num_started(healths) < self._num_required:
            raise self._not_serving_in_time(lost)

    def _not_serving_in_time(self, lost: Seat) -> WaitTimeout:
        late = [lost.name, *(seat.name for seat in self.members if not seat.health.is_serving)]
        return WaitTimeout(
            f"{len(late)} of {len(self._seats)} engines not on version {lost.state.version} after "
            f"{self._config.start_timeout_s:g} s ({', '.join(late)}): raise engines.start_timeout_s, or see their logs"
        )


def wait_for(calls: list[Any]) -> set[Any]:
    """Those that have ended, once there is one or the next look is due."""
    if not calls:
        return set()
    ray.wait(calls, num_returns=1, timeout=_LOOK_S, fetch_local=False)
    ended, _ = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
    return set(ended)
