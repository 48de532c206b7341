"""What sets of questions have in common: normalised stems that stand in two of them, counted and shown."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from medcritical_ray.questions.splits import normalised_stem
from medcritical_ray.records import Question

NUM_EXAMPLES = 10
NUM_SHOWN = 3


class Twins(NamedTuple):
    """Two questions with one normalised stem: their ids, and the stem as the first of them has it."""

    first_id: str
    second_id: str
    stem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedStems:
    """How many different normalised stems two sets have in common, and the first ten as examples."""

    num_stems: int
    examples: list[Twins]

    def __str__(self) -> str:
        """As in "12 (train-7 = test-1, train-9 = test-4, …)"."""
        shown = [f"{twins.first_id} = {twins.second_id}" for twins in self.examples[:NUM_SHOWN]]
        more = ["…"] if self.num_stems > NUM_SHOWN else []
        return f"{self.num_stems:,}" + (f" ({', '.join([*shown, *more])})" if shown else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination:
    """What every two splits of a run have in common, and every two of the files that they come from, where dev or test
    has one; `kept` says whether the run uses such questions of the files for all that."""

    splits: dict[str, SharedStems]
    files: dict[str, SharedStems]
    kept: bool

    @property
    def is_any(self) -> bool:
        return any(stems.num_stems for stems in (*self.splits.values(), *self.files.values()))

    def lines(self) -> list[str]:
        """The same for people."""
        then = "used all the same: questions.keep_shared_stems" if self.kept else "left out of the former of each two"
        lines = [f"stems in two splits: {_listed(self.splits)}"]
        return [*lines, f"stems in two files: {_listed(self.files)}; {then}"] if self.files else lines


def shared_stems(sets: Mapping[str, Iterable[Question]]) -> dict[str, SharedStems]:
    """What every two of the sets have in common, under names such as "train and test", in the order given."""
    firsts = {name: _first_by_stem(questions) for name, questions in sets.items()}
    return {f"{a} and {b}": _shared(firsts[a], firsts[b]) for a, b in combinations(firsts, 2)}


def without_stems_of(questions: Iterable[Question], others: Iterable[Iterable[Question]]) -> Iterator[Question]:
    """The questions whose normalised stem stands in none of the others."""
    taken = {normalised_stem(question.stem) for other in others for question in other}
    return (question for question in questions if normalised_stem(question.stem) not in taken)


def _listed(shared: Mapping[str, SharedStems]) -> str:
    return ", ".join(f"{pair} {stems}" for pair, stems in shared.items())


def _first_by_stem(questions: Iterable[Question]) -> dict[str, tuple[str, str]]:
    """Normalised stem -> id and stem of the first question with it; no more is kept of a training split."""
    firsts: dict[str, tuple[str, str]] = {}
    for question in questions:
        firsts.setdefault(normalised_stem(question.stem), (question.id, question.stem))
    return firsts


def _shared(a: Mapping[str, tuple[str, str]], b: Mapping[str, tuple[str, str]]) -> SharedStems:
    stems = [stem for stem in a if stem in b]
    examples = [Twins(a[stem][0], b[stem][0], a[stem][1]) for stem in stems[:NUM_EXAMPLES]]
    return SharedStems(num_stems=len(stems), examples=examples)
