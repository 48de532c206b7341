"""Has turns written by the team, block by block; each block is kept on disk as a part, which no resumed run redoes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcritical_ray.asked import Turns
from medcritical_ray.config import SamplingConfig
from medcritical_ray.game import AskedBlock, Role, Session
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import Turn
from medcritical_ray.run.tables import iter_columns, missing_parts, part_path, write_part


class Player(NamedTuple):
    """A policy in the role that it writes in."""

    role: Role
    version: int
    policy_dir: Path


class Play:
    """The trajectories of some blocks, of which those that are missing are written as the play goes on.

    A play that `follows` another asks about what that one writes. It may go on beside it, if their roles have engines
    of their own: a block has its turn as soon as the other has written it, and an engine that does not help with that.
    """

    def __init__(
        self,
        session: Session,
        directory: Path,
        player: Player,
        sampling: SamplingConfig,
        num_blocks: int,
        turns_of_block: Turns,
        *,
        follows: "Play | None" = None,
    ) -> None:
        self.directory = directory
        self.is_under_way = False
        self._is_awaited = False
        self._session = session
        self._player = player
        self._sampling = sampling
        self._num_blocks = num_blocks
        self._turns_of_block = turns_of_block
        self._follows = follows
        self._counts: Counter[str] = Counter()
        self._going_on = self._write()

    def is_about_to_write(self, block: int) -> bool:
        return self.is_under_way and not part_path(self.directory, block).exists()

    def go_on(self) -> None:
        """Looks once for what is written, and waits for it no longer than a moment."""
        next(self._going_on, None)

    def finish(self, beside: "Sequence[Play]" = ()) -> dict[str, Any]:
        """Writes what is still missing, if need be with the help of the other role's engines, and counts the
        trajectories of all blocks. Plays `beside` it go on meanwhile, as far as they come."""
        self._is_awaited = True
        for play in (self, *beside):
            play._make_ready()
        label, num_told = f"{self.directory.parent.name}/{self.directory.name}", 0
        for num_written in self._going_on:
            for other in beside:
                if other.is_under_way or self._session.team.is_free(other._player.role):
                    other.go_on()
            if num_written > num_told:
                num_told = num_written
                self._session.progress.advance(label, num_written, self._num_blocks)
        return _as_result(self._counts)

    def _make_ready(self) -> None:
        """Before anything is asked of any engine: whoever waits for one to start does not see to the others."""
        if not self.is_under_way and missing_parts(self.directory, self._num_blocks):
            self._session.team.serve(*self._player)

    def _write(self) -> Iterator[int]:
        """Yields, whenever others may go on, how many blocks are written so far."""
        self._counts = _count_parts(self.directory)
        num_written = self._num_blocks - len(missing_parts(self.directory, self._num_blocks))
        if num_written == self._num_blocks:
            yield num_written
            return
        self.is_under_way = True
        under_way: dict[int, list[Turn]] = {}
        team, (role, version, _) = self._session.team, self._player
        requests = self._requests(under_way)
        for answer in team.write(role, version, requests, self._sampling, wants_help=lambda: self._is_awaited):
            if answer:
                block, completions = answer
                turns = under_way.pop(block)
                trajectories = [turn.trajectory(done, version) for turn, done in zip(turns, completions, strict=True)]
                write_part(self.directory, block, trajectories, Trajectory)
                for each in trajectories:
                    _count(self._counts, each.task, each.correct, each.answer, each.num_tokens)
                num_written += 1
            yield num_written
        self.is_under_way = False

    def _requests(self, under_way: dict[int, list[Turn]]) -> Iterator[AskedBlock | None]:
        """Of each block that is missing; None as often as the next cannot be told yet."""
        for block in missing_parts(self.directory, self._num_blocks):
            while self._follows and self._follows.is_about_to_write(block):
                yield None
            under_way[block] = self._turns_of_block(block)
            yield block, [turn.request(self._session.config.run.seed) for turn in under_way[block]]


def write_nothing(directory: Path, num_blocks: int) -> dict[str, Any]:
    """Leaves every block without a trajectory."""
    for block in range(num_blocks):
        write_part(directory, block, [], Trajectory)
    return count_trajectories(directory)


def count_trajectories(directory: Path) -> dict[str, Any]:
    """How many trajectories the parts hold, and how many of them have a right answer, a wrong one, or none."""
    return _as_result(_count_parts(directory))


def _count_parts(directory: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in iter_columns(directory, ("task", "correct", "answer", "num_tokens")):
        for row in zip(part["task"], part["correct"], part["answer"], part["num_tokens"], strict=True):
            _count(counts, *row)
    return counts


def _count(counts: Counter[str], task: str, correct: bool, answer: str, num_tokens: int) -> None:
    counts["num_trajectories"] += 1
    counts["num_tokens"] += num_tokens
    counts[f"{task}_{'right' if correct else 'wrong' if answer else 'unreadable'}"] += 1


def _as_result(counts: Counter[str]) -> dict[str, Any]:
    return {"num_trajectories": 0, "num_tokens": 0, **dict(sorted(counts.items()))}
