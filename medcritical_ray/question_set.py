"""The questions of one split as they lie on disk, read a block at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medcritical_ray.questions.readers.native import question_of
from medcritical_ray.records import Question
from medcritical_ray.tables import num_rows_of, take_rows


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
    def whole(cls, path: Path, block_size: int) -> "QuestionSet":
        """Raises UserError if the file cannot be read."""
        return cls(path, 0, num_rows_of(path), block_size)

    @property
    def num_blocks(self) -> int:
        return -(-self.num_questions // self.block_size)

    def block(self, index: int) -> list[Question]:
        """The questions of one block; the last may be shorter. Raises UserError if the file cannot be read."""
        start = index * self.block_size
        size = min(self.block_size, self.num_questions - start)
        num_rows = num_rows_of(self.path)
        rows = [(self.first + start + i) % num_rows for i in range(size)]
        return [question_of(row, row["id"]) for row in take_rows([self.path], rows).to_pylist()]

    def __iter__(self) -> Iterator[Question]:
        for index in range(self.num_blocks):
            yield from self.block(index)

    def window(self, first: int, num_questions: int) -> "QuestionSet":
        """`num_questions` questions from the one that is `first` of these."""
        return QuestionSet(self.path, self.first + first, num_questions, self.block_size)
