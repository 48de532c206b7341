"""A pool of engines that serve the same policy version, and the work that is fanned out over them."""

import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import ray

from actors.fleet import Fleet, wait_for
from actors.seat import Seat
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.fan_out import OrderedBlocks
from medcritical_ray.engines.fleet import EngineState, Note, num_engines_wanted
from medcritical_ray.engines.served import ServedPolicy, served_policy
from medcritical_ray.engines.weights import check_files, mapped
from medcritical_ray.model_files import weight_files
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.store.mirror import Mirror

Key = TypeVar("Key", bound=Hashable)
Work = OrderedBlocks[Any, list[Request], list[Completion]]


class EnginePool:
    """Engines between two bounds: `engines.min_engines` start at once, beside whatever the caller does next; more come
    while work waits for one, up to `num_engines` (the config's number if None), and stay until `shrink`.

    Needs a Ray that is initialised. `name` begins the names of the engines and must differ between pools. `mirror` is
    the run's, where policies are fetched from by machines that do not have them. An engine that fails or does not move
    is replaced until it is retired (medcritical_ray/engines/health.py), and others take its work. Every wait ends: with
    the UserError that an engine raises, or as Fleet.attend says.
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
        seat: type[Seat] = Seat,
    ) -> None:
        self._max_in_flight = config.max_in_flight
        self._policy = served_policy(version, policy_dir)
        self._most = config.num_engines if num_engines is None else num_engines
        self._least = config.least_of(self._most)
        self._fleet = Fleet([seat(f"{name}-{i}", config, max_lora_rank, mirror) for i in range(self._most)], config)
        self._fleet.grow(self._least, self._policy)
        self.is_at_work = False
        """Whether somebody reads what its engines write, or they help another pool."""

    @property
    def version(self) -> int:
        """The version that every engine serves, or is about to serve."""
        return self._policy.version

    def serves(self, version: int, policy_dir: Path) -> bool:
        """Whether the current version is that policy: versions of different runs have the same numbers."""
        return self._policy == served_policy(version, policy_dir)

    @property
    def states(self) -> list[EngineState]:
        """What each engine is at, and those that are not there."""
        return self._fleet.states

    @property
    def num_serving(self) -> int:
        """Engines that have confirmed the current version."""
        return self._fleet.num_serving

    def tell(self, note: Note) -> None:
        """From now on `note` is told of every death, restart and retirement of an engine."""
        self._fleet.note = note

    def wait_until_serving(self) -> None:
        """Waits until every engine has confirmed the current version, but for those that are restarted, unless too few
        serve without them, and those above the minimum that have yet to come: they confirm it before they are asked
        anything."""
        self._fleet.shrink(self._least, but_not=lambda seat: seat.health.state != "restarting")
        self._fleet.grow(self._least, self._policy)
        while self._fleet.is_awaited(self._least):
            self._fleet.attend()
            self._fleet.grow(self._least, self._policy)

    def shrink(self) -> None:
        """Ends the engines above the minimum, so that their machines may go."""
        self._fleet.shrink(self._least)

    def map(
        self,
        blocks: Iterable[tuple[Key, list[Request]] | None],
        sampling: SamplingConfig,
        watch: Callable[[], None] = lambda: None,
        helper: "Callable[[], EnginePool | None]" = lambda: None,
    ) -> Iterator[tuple[Key, list[Completion]] | None]:
        """The completions of each block of requests, once each, in the order of the blocks; None while there are none,
        so that whoever reads them may see to something else. None among the blocks says that the next one is not known
        yet.

        Reads `blocks` as room becomes free: `max_in_flight` of them wait at one engine, and as many again for their
        turn. Blocks of an engine that is lost are written again, with the same result. `watch` is called
        whenever `states` may have changed.

        While there are blocks to hand out, the engines of the `helper` take some, if it is not at work and serves the
        same policy, and engines of neither come and go.
        """
        work: Work = OrderedBlocks(blocks, window=0)
        pools = [self]
        self._begin()
        try:
            while not work.is_done:
                self._see_to_help(pools, work, helper)
                self._hand_out(work, sampling, pools)
                for pool in pools:
                    pool._fleet.grow(pool._num_wanted(work), pool._policy)
                watch()
                _take_answers(work, pools)
                finished = list(work.finished_in_order())
                yield from finished or (None,)
        finally:
            for pool in pools:
                pool._rest()
            watch()

    def broadcast(self, version: int, policy_dir: Path) -> None:
        """Has every engine serve the policy in a directory as `version`, and waits as `wait_until_serving` does.

        Full weights are read where they lie, if Ray has but this machine; else they travel through the object store,
        once to each; with `engines.weight_transfer = "nccl"` to that of one engine, which sends them on. Their hashes
        are compared meanwhile: raises UserError if a file is damaged. Then, as after any error of the handing over, no
        engine is left, and those that start next serve the version before.
        """
        assert not self.is_at_work, "the pool is at work"
        self.wait_until_serving()
        policy = served_policy(version, policy_dir)
        takes_weights = policy.adapter_dir is None or policy.model_dir != self._policy.model_dir
        try:
            self._hand_over(policy, policy.model_dir if takes_weights else None)
        except Exception:
            self._fleet.shrink(0)
            raise
        self._policy = policy
        self.wait_until_serving()

    def close(self) -> None:
        """Ends the engines."""
        self._fleet.shrink(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_over(self, policy: ServedPolicy, weights_dir: Path | None) -> None:
        """Tells all engines of the policy, and compares the weights' hashes beside what they do with them. That a file
        is damaged is told before whatever an engine has made of it."""
        if weights_dir is None:
            self._fleet.update(policy, [])
            return
        with ThreadPoolExecutor(max_workers=1) as beside:
            check = beside.submit(check_files, weights_dir)
            try:
                self._fleet.update(policy, _handed_over(weights_dir))
            finally:
                check.result()

    def _begin(self) -> None:
        assert not self.is_at_work, "the pool is at work already"
        self.is_at_work = True

    def _rest(self) -> None:
        self._fleet.excuse()
        self.is_at_work = False

    def _hand_out(self, work: Work, sampling: SamplingConfig, pools: "Sequence[EnginePool]") -> None:
        """Gives blocks to healthy engines, the least busy first, until all are busy or no block is left."""
        healthy = [seat for pool in pools for seat in pool._fleet.members if seat.health.state == "healthy"]
        while healthy:
            seat = min(healthy, key=lambda each: each.num_in_flight)
            block = work.next_block() if seat.num_in_flight < self._max_in_flight else None
            if block is None:
                return
            seat.ask(block, sampling)

    def _num_wanted(self, work: Work) -> int:
        """The engines that the work would keep busy."""
        num_blocks = work.num_waiting + self._fleet.num_in_flight
        return num_engines_wanted(num_blocks, per_engine=self._max_in_flight, least=self._least, most=self._most)

    def _see_to_help(self, pools: "list[EnginePool]", work: Work, helper: "Callable[[], EnginePool | None]") -> None:
        """Has the helper begin, if it may, or rest when it has nothing left to do."""
        if len(pools) == 1 and not work.is_handed_out and (found := helper()) and found._may_help(self):
            found._begin()
            pools.append(found)
        elif len(pools) == 2 and work.is_handed_out and not pools[1]._fleet.num_in_flight:
            pools.pop()._rest()
        work.window = 2 * self._max_in_flight * sum(pool._most for pool in pools)

    def _may_help(self, other: "EnginePool") -> bool:
        """Blocks would wait for an engine to come while the other's have none left."""
        all_stay = self._least == self._most and other._least == other._most
        return all_stay and not self.is_at_work and self._policy == other._policy


def _take_answers(work: Work, pools: Sequence[EnginePool]) -> None:
    ended = wait_for([call for pool in pools for call in pool._fleet.calls])
    for pool in pools:
        answers, lost = pool._fleet.attend(ended)
        for block, completions in answers:
            work.finish(block, completions)
        for block in lost:
            work.put_back(block)


def _handed_over(policy_dir: Path) -> list[Any]:
    """The policy's weight files for engines wherever they are: paths, if that is on this machine, or references to what
    is in the files."""
    files = weight_files(policy_dir)
    machines = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if machines == {socket.gethostname()}:
        return list(files)
    return [ray.put(mapped(file)) for file in files]
