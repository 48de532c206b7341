"""Keyed blocks of work: handed out in any order, perhaps twice, and given back once each, in the order they came in."""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Block(Generic[Key, Work]):
    """One unit of work. `position` counts the blocks from 0 in the order they came in."""

    position: int
    key: Key
    work: Work


class OrderedBlocks(Generic[Key, Work, Result]):
    """Keeps at most `window` blocks between reading them and giving back their results. None among the blocks says that
    the next one is not known yet."""

    def __init__(self, blocks: Iterable[tuple[Key, Work] | None], window: int) -> None:
        self._source = iter(blocks)
        self.window = window
        self._num_read = 0
        self._is_read = False
        self._pending: deque[Block[Key, Work]] = deque()
        self._waiting: deque[Block[Key, Work]] = deque()
        self._results: dict[int, Result] = {}

    def next_block(self) -> Block[Key, Work] | None:
        """The block to work on next, lost ones first; None if there is none for now, or no room in the window.

        Reads no more than that block: whoever waits for it need not wait for a window to be filled.
        """
        if not self._waiting:
            self._read_one()
        return self._waiting.popleft() if self._waiting else None

    def put_back(self, block: Block[Key, Work]) -> None:
        """Says that a block was lost, so that it is handed out again."""
        self._waiting.appendleft(block)

    def finish(self, block: Block[Key, Work], result: Result) -> None:
        self._results[block.position] = result

    def finished_in_order(self) -> Iterator[tuple[Key, Result]]:
        """The keys and results that are next in order and finished."""
        while self._pending and self._pending[0].position in self._results:
            block = self._pending.popleft()
            yield block.key, self._results.pop(block.position)

    @property
    def num_waiting(self) -> int:
        """The blocks that nobody works on, as far as the window shows."""
        self._read_ahead()
        return len(self._waiting)

    @property
    def is_handed_out(self) -> bool:
        """Whether every block was read and none waits, as far as anybody has asked for one."""
        return self._is_read and not self._waiting

    @property
    def is_done(self) -> bool:
        """Whether every block was read and given back."""
        return self._is_read and not self._pending

    def _read_ahead(self) -> None:
        while self._read_one():
            pass

    def _read_one(self) -> bool:
        """Whether there was one more, and room for it."""
        if self._is_read or len(self._pending) >= self.window:
            return False
        try:
            item = next(self._source)
        except StopIteration:
            self._is_read = True
            return False
        if item is None:
            return False
        block = Block(self._num_read, *item)
        self._num_read += 1
        self._pending.append(block)
        self._waiting.append(block)
        return True
