"""A pool of engines that serve the same policy version, and the work that is fanned out over them."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

from actors.seat import Seat
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engine import StaleVersion
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout
from medcritical_ray.fan_out import OrderedBlocks
from medcritical_ray.fleet import EngineState
from medcritical_ray.mirror import Mirror
from medcritical_ray.recovery import EngineStatus, next_step, num_engines_wanted
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.served import served_policy
from medcritical_ray.weights import read_blobs

Key = TypeVar("Key", bound=Hashable)
Work = OrderedBlocks[Any, list[Request], list[Completion]]


class EnginePool:
    """Engines between two bounds: `engines.min_engines` start at once, beside whatever the caller does next; more come
    while work waits for one, up to `num_engines` (the config's number if None), and stay until `shrink`.

    Needs a Ray that is initialised. `name` begins the names of the engines and must differ between pools. `mirror` is
    the run's, where policies are fetched from by machines that do not have them. Every wait
    ends: with WaitTimeout if an engine is not ready in time, with RunFailed if one fails and may not be replaced, and
    with the UserError that an engine raises. An engine above the minimum may be lost to its machine, or never get one:
    others take its work, and the pool asks for as many again as it may hold before it does with those that it has.
    """

    def __init__(
        self,
        config: EnginesConfig,
        version: int,
        policy_dir: Path,
        *,
        name: str,
        num_engines: int | None = None,
        max_lora_rank: int | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._config = config
        self._policy = served_policy(version, policy_dir)
        self._num_restarts = 0
        self._num_losses = 0
        self._most = config.num_engines if num_engines is None else num_engines
        self._least = min(self._most, config.least_engines)
        self._places = [Seat(f"{name}-{i}", config, max_lora_rank, mirror) for i in range(self._most)]
        self._seats: list[Seat] = []
        self._grow(self._least)

    @property
    def version(self) -> int:
        """The version that every engine serves, or is about to serve."""
        return self._policy.version

    def serves(self, version: int, policy_dir: Path) -> bool:
        """Whether the current version is that policy: versions of different runs have the same numbers."""
        return self._policy == served_policy(version, policy_dir)

    @property
    def num_restarts(self) -> int:
        """Engines replaced so far."""
        return self._num_restarts

    @property
    def states(self) -> list[EngineState]:
        """What each engine is at, and those that are not there."""
        return [seat.state for seat in self._places]

    @property
    def num_serving(self) -> int:
        """Engines that have confirmed the current version."""
        return sum(seat.is_serving for seat in self._seats)

    def wait_until_serving(self) -> None:
        """Waits until every engine has confirmed the current version, but for those above the minimum that have yet to
        come: they confirm it before they are asked anything."""
        self._shrink_to(self._least, but_not=lambda seat: not seat.is_starting)
        while self.num_serving < len(self._seats):
            self._take_answers(_no_work())

    def shrink(self) -> None:
        """Ends the engines above the minimum, so that their machines may go."""
        self._shrink_to(self._least, but_not=lambda _: False)

    def map(
        self,
        blocks: Iterable[tuple[Key, list[Request]]],
        sampling: SamplingConfig,
        watch: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Key, list[Completion]]]:
        """The completions of each block of requests, once each, in the order of the blocks.

        Reads `blocks` as room becomes free: `max_in_flight` of them wait at one engine, and as many again for their
        turn. An engine that fails is replaced and its blocks are written again, with the same result. `watch` is called
        whenever `states` may have changed.
        """
        assert not any(seat.num_in_flight for seat in self._seats), "the pool is at work already"
        work: Work = OrderedBlocks(blocks, window=2 * self._most * self._config.max_in_flight)
        self._num_losses = 0
        try:
            while not work.is_done:
                self._hand_out(work, sampling)
                self._grow(self._num_wanted(work))
                watch()
                self._take_answers(work)
                yield from work.finished_in_order()
        finally:
            for seat in self._seats:
                seat.forget()
            watch()

    def broadcast(self, version: int, policy_dir: Path) -> None:
        """Has every engine serve the policy in a directory as `version`, and waits until each has confirmed it.

        Full weights travel through the object store, once to each machine.
        """
        assert not any(seat.num_in_flight for seat in self._seats), "the pool is at work"
        self.wait_until_serving()
        policy = served_policy(version, policy_dir)
        takes_weights = policy.adapter_dir is None or policy.model_dir != self._policy.model_dir
        blobs = [ray.put(blob) for blob in read_blobs(policy.model_dir)] if takes_weights else []
        self._policy = policy
        for seat in self._seats:
            seat.update(policy, blobs)
        self.wait_until_serving()

    def close(self) -> None:
        """Ends the engines."""
        self._shrink_to(0, but_not=lambda _: False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _num_wanted(self, work: Work) -> int:
        """The engines that the work would keep busy; none that are not there yet, once too many in a row were lost."""
        if self._num_losses >= self._most:
            return 0
        num_blocks = work.num_waiting + sum(seat.num_in_flight for seat in self._seats)
        return num_engines_wanted(num_blocks, per_engine=self._config.max_in_flight, least=self._least, most=self._most)

    def _grow(self, num_wanted: int) -> None:
        for seat in self._places:
            if len(self._seats) < num_wanted and seat not in self._seats:
                seat.start(self._policy)
                self._seats.append(seat)

    def _shrink_to(self, num_seats: int, *, but_not: Callable[[Seat], bool]) -> None:
        """Ends as many engines as are too many, those that do not serve first."""
        for seat in sorted(self._seats, key=lambda seat: seat.is_serving):
            if len(self._seats) > num_seats and not but_not(seat):
                seat.end()
                self._seats.remove(seat)

    def _hand_out(self, work: Work, sampling: SamplingConfig) -> None:
        """Gives blocks to the engines that serve, the least busy first, until all are busy or no block is left."""
        serving = [seat for seat in self._seats if seat.is_serving]
        while serving:
            seat = min(serving, key=lambda each: each.num_in_flight)
            block = work.next_block() if seat.num_in_flight < self._config.max_in_flight else None
            if block is None:
                return
            seat.ask(block, sampling)

    def _take_answers(self, work: Work) -> None:
        """Waits for the next answer, takes all that are there, and sees to engines that failed or are out of time."""
        waiting = [seat for seat in self._seats if seat.refs]
        if not waiting:
            return
        answered = _answered([ref for seat in waiting for ref in seat.refs], min(s.seconds_left for s in waiting))
        for seat in waiting:
            refs = [ref for ref in seat.refs if ref in answered]
            if refs:
                self._take_from(seat, refs, work)
            elif seat.seconds_left <= 0:
                self._out_of_time(seat, work)

    def _take_from(self, seat: Seat, refs: list[Any], work: Work) -> None:
        try:
            for ref in refs:
                finished = seat.take(ref)
                if finished:
                    work.finish(*finished)
                    self._num_losses = 0
        except UserError as error:
            raise getattr(error, "cause", error) from None
        except (RayError, StaleVersion) as error:
            self._recover(seat, seat.status_after(error), _cause(error), work)

    def _out_of_time(self, seat: Seat, work: Work) -> None:
        if seat.is_serving:
            limit_s, key = seat.limit
            self._recover(seat, "silent", f"no answer for {limit_s:g} s ({key})", work)
        elif self._can_spare_one:
            self._do_without(seat, work)
        else:
            raise self._not_serving_in_time(seat)

    @property
    def _can_spare_one(self) -> bool:
        return len(self._seats) > max(self._least, 1)

    def _do_without(self, seat: Seat, work: Work) -> None:
        self._num_losses += 1
        self._seats.remove(seat)
        for block in seat.end():
            work.put_back(block)

    def _recover(self, seat: Seat, status: EngineStatus, cause: str, work: Work) -> None:
        """Does without an engine, or replaces it, or gives up; its blocks are for whichever engine is free."""
        if self._can_spare_one:
            self._do_without(seat, work)
            return
        restarts_left = self._config.max_restarts - self._num_restarts
        if next_step(status, restarts_left=restarts_left) == "give_up":
            raise self._given_up(seat, status, cause)
        self._num_restarts += 1
        for block in seat.end():
            work.put_back(block)
        seat.start(self._policy)

    def _given_up(self, seat: Seat, status: EngineStatus, cause: str) -> RunFailed:
        if status == "never_started":
            return RunFailed(f"{seat.name} did not start: {cause}")
        return RunFailed(
            f"{seat.name} is {status} (blocks {seat.keys_in_flight}): {cause}; "
            f"all {self._config.max_restarts} replacements are used up (engines.max_restarts)"
        )

    def _not_serving_in_time(self, seat: Seat) -> WaitTimeout:
        late = [each.name for each in self._seats if not each.is_serving]
        limit_s, key = seat.limit
        return WaitTimeout(
            f"{len(late)} of {len(self._seats)} engines not on version {self.version} after {limit_s:g} s "
            f"({', '.join(late)}): raise {key}, or see their logs"
        )


def _answered(refs: list[Any], seconds_left: float) -> set[Any]:
    """The calls that have ended, once there is one or the time is up."""
    ray.wait(refs, num_returns=1, timeout=max(seconds_left, 0), fetch_local=False)
    answered, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
    return set(answered)


def _no_work() -> Work:
    return OrderedBlocks([], window=1)


def _cause(error: Exception) -> str:
    """What happened, in one line: the error that the engine raised, or what Ray says last of its process."""
    if isinstance(error, RayActorError):
        return shorten(str(error).strip().splitlines()[-1], width=200)
    cause = getattr(error, "cause", None) or error
    return shorten(f"{type(cause).__name__}: {cause}", width=400)
