"""Reviews: attempts that are handed in to a teacher, many at a time, what comes back, and what it takes."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from medcritical_ray.records import Task, UnkeyedQuestion

NO_CORRECTION = "teacher has no correction"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """An attempt to be corrected. The task is `repair` if it is known to be wrong, else `check`.

    `fault` says of a correction why it does not count, None if it does. It judges by the key, and keeps it to itself:
    who corrects has nothing but the question and the attempt to show to a model.
    """

    question: UnkeyedQuestion
    attempt: str
    task: Task
    fault: Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a teacher wrote in the end: empty if nothing came. `fault` says why it does not count, None if it does.

    `num_asked` counts the rounds that it took; `num_tokens` are the text's, as an endpoint counts them.
    """

    text: str
    fault: str | None
    num_asked: int = 1
    num_tokens: int = 0


def kind_of(fault: str) -> str:
    """What is counted of a fault: after a colon stands what is its own alone, such as a server's words."""
    return fault.partition(":")[0]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was asked of a teacher: how many texts, the characters that it wrote, and drops by reason."""

    num_texts: int = 0
    num_chars: int = 0
    drops: Counter[str] = field(default_factory=Counter)

    def add(self, text: str | None) -> None:
        self.num_texts += 1
        self.num_chars += len(text or "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Charges:
    """What a teacher took: calls, tokens as an endpoint counts them, characters written, and the cost in the currency
    of the prices. The cost is None, which is not nothing, if it is not known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    written_chars: int = 0
    cost: float | None = 0.0

    def __add__(self, other: "Charges") -> "Charges":
        return Charges(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            written_chars=self.written_chars + other.written_chars,
            cost=None if self.cost is None or other.cost is None else self.cost + other.cost,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Reviewer(Protocol):
    """Corrects attempts from question and attempt alone."""

    def corrections(self, submissions: Sequence[Submission], iteration: int) -> list[Written]:
        """One for each submission, in their order. What they take is charged to the iteration."""
        ...

    def charges(self, iteration: int, tally: Tally) -> Charges:
        """What the iteration's corrections, of which `tally` was kept, took, in earlier processes, too."""
        ...


class RuleTeacher(ABC):
    """One that corrects by rules: each attempt by itself, and for nothing."""

    @abstractmethod
    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        """None if it cannot tell."""

    def corrections(self, submissions: Sequence[Submission], iteration: int) -> list[Written]:
        return [self._corrected(each) for each in submissions]

    def charges(self, iteration: int, tally: Tally) -> Charges:
        return Charges(calls=tally.num_texts, written_chars=tally.num_chars)

    def _corrected(self, submission: Submission) -> Written:
        text = self.correction(submission.question, submission.attempt)
        return Written(text=text or "", fault=NO_CORRECTION if text is None else submission.fault(text))


def review(reviewer: Reviewer, submissions: Sequence[Submission], iteration: int, tally: Tally) -> list[str | None]:
    """The corrections that count, in the submissions' order; None for any other, with its reason in the tally."""
    corrections = reviewer.corrections(submissions, iteration)
    for written in corrections:
        tally.add(written.text)
        if written.fault:
            tally.drops[kind_of(written.fault)] += 1
    return [written.text if written.fault is None else None for written in corrections]
