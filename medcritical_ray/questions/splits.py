"""Splits that share no question. Questions are the same if their stems are, whatever their spacing and punctuation."""

import hashlib
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medcritical_ray.errors import UserError
from medcritical_ray.records import Question

_LEFT_OUT = "PZC"
"""First letters of the Unicode categories of punctuation, separators and control characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    train: list[Question]
    dev: list[Question]
    test: list[Question]

    def by_name(self) -> dict[str, list[Question]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


def normalised_stem(stem: str) -> str:
    """A stem in Unicode's compatibility form (NFKC), lower-case, without whitespace and punctuation."""
    text = unicodedata.normalize("NFKC", stem).lower()
    return "".join(char for char in text if unicodedata.category(char)[0] not in _LEFT_OUT)


def stem_hash(stem: str) -> str:
    """SHA-256 of a normalised stem: tells a question from others without showing it."""
    return hashlib.sha256(normalised_stem(stem).encode()).hexdigest()


def draw(questions: Sequence[Question], count: int, seed: int, name: str) -> list[Question]:
    """`count` questions of a file that is a split by itself. Raises UserError if there are not as many."""
    if len(questions) < count:
        raise UserError(f"questions.num_{name} = {count}: questions.{name}_path has only {len(questions):,} questions")
    return random.Random(f"draw {name} {seed}").sample(questions, count)


def split_questions(questions: Iterable[Question], *, num_train: int, num_dev: int, num_test: int, seed: int) -> Splits:
    """Draws three splits of exactly these sizes, such that no normalised stem stands in two of them.

    The draw depends on the seed and the order of the questions alone. Test is drawn first and train last, so that
    another `num_train` leaves dev and test as they are. Holds all questions in memory.

    Raises UserError if there are too few.
    """
    groups = _by_stem(questions)
    random.Random(f"split {seed}").shuffle(groups)
    num_questions = sum(map(len, groups))
    remaining = iter(groups)
    test, dev, train = (_take(remaining, count) for count in (num_test, num_dev, num_train))
    if (len(train), len(dev), len(test)) != (num_train, num_dev, num_test):
        wanted = {"num_train": num_train, "num_dev": num_dev, "num_test": num_test}
        raise UserError(_too_few({name: num for name, num in wanted.items() if num}, num_questions, len(groups)))
    return Splits(train=train, dev=dev, test=test)


def _too_few(wanted: dict[str, int], num_questions: int, num_stems: int) -> str:
    """Of the splits that are drawn from this file, and not of those that have files, and counts, of their own."""
    *others, last = [f"{name} = {num}" for name, num in wanted.items()]
    if not others:
        return f"questions.{last}: there are only {num_questions:,} questions for it: lower it or give more questions"
    return (
        f"questions.{', '.join(others)} and {last} need {sum(wanted.values()):,} questions that share no stem between "
        f"them, but there are only {num_questions:,} questions with {num_stems:,} different stems: lower them or give "
        "more questions"
    )


def _by_stem(questions: Iterable[Question]) -> list[list[Question]]:
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[normalised_stem(question.stem)].append(question)
    return list(groups.values())


def _take(groups: Iterator[list[Question]], count: int) -> list[Question]:
    """`count` questions of the next groups, or all there are. What is left of the last group belongs to no split."""
    taken: list[Question] = []
    while len(taken) < count and (group := next(groups, None)):
        taken += group[: count - len(taken)]
    return taken
