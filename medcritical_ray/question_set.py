"""The questions of one split as they lie on disk, read a block at a time."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medcritical_ray.questions.readers.native import question_of
from medcritical_ray.records import Question
from medcritical_ray.run.tables import num_rows_of, readable

READ_SIZE = 1000
"""Questions that are held in memory at once where blocks are no unit of work."""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """`num_questions` questions of a parquet file from row `first` on, in blocks of `block_size`.

    Rows past the end of the file go on at its start, so that a window may move over the file for ever.
    """

    path: Path
    first: int
    num_questions: int
    block_size: int

    @classmethod
    def whole(cls, path: Path, block_size: int = READ_SIZE) -> "QuestionSet":
        """All questions of a file, in blocks of whatever size for who only reads them. Raises UserError if it cannot
        be read."""
        return cls(path, 0, num_rows_of(path), block_size)

    @property
    def num_blocks(self) -> int:
        return -(-self.num_questions // self.block_size)

    def block(self, index: int) -> list[Question]:
        """The questions of one block; the last may be shorter. Raises UserError if the file cannot be read."""
        start = index * self.block_size
        size = min(self.block_size, self.num_questions - start)
        with readable(self.path), pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            rows = [(self.first + start + i) % file.metadata.num_rows for i in range(size)]
            return [question_of(row, row["id"]) for row in _take(file, rows)]

    def __iter__(self) -> Iterator[Question]:
        for index in range(self.num_blocks):
            yield from self.block(index)

    def window(self, first: int, num_questions: int) -> "QuestionSet":
        """`num_questions` questions from the one that is `first` of these."""
        return QuestionSet(self.path, self.first + first, num_questions, self.block_size)


def _take(file: pq.ParquetFile, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Rows by their numbers. Only the row groups that hold them are read, so that a pass over a file reads it once or
    twice, however small its blocks."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = list(accumulate(sizes, initial=0))
    groups = sorted({bisect_right(firsts, row) - 1 for row in rows})
    numbers = [row for group in groups for row in range(firsts[group], firsts[group + 1])]
    place = {row: position for position, row in enumerate(numbers)}
    table = file.read_row_groups(groups, use_threads=False)
    return table.take([place[row] for row in rows]).to_pylist()
