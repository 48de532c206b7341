"""The records that pass between the parts of the system, from question to preference pair.

Every record is frozen and made of plain values, so that it crosses process boundaries and parquet files unchanged.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Task = Literal["solve", "repair", "check"]
"""What a policy is asked to do: answer a question; repair an attempt it is told is wrong; check one whose verdict is
unknown. The generator solves; the corrector repairs and checks, and each of its two tasks has a prompt of its own."""

PairSource = Literal["correction", "own", "repair", "keep"]
"""Where a pair comes from: `correction` prefers a repaired trace to the wrong attempt it repairs; `own` prefers one of
the policy's right attempts to one of its wrong ones; `repair` and `keep` train the corrector itself, and prefer a
correction that repaired to one that failed, and one that kept a right attempt to one that broke it."""

LETTERS = "ABCDEFGHIJ"
"""The letters that options may have."""


class Option(NamedTuple):
    """One lettered option of a question."""

    letter: str
    text: str


def lettered(texts: list[str]) -> tuple[Option, ...]:
    """Options with the letters A, B, C and so on."""
    return tuple(Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class UnkeyedQuestion:
    """All that a model or a teacher may see of a question: it has no field that could hold the answer."""

    id: str
    stem: str
    options: tuple[Option, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """An exam question with its key.

    `key` holds the right letters in alphabetical order, one for most questions ("C"), several for some ("ABD").
    """

    id: str
    source: str
    stem: str
    options: tuple[Option, ...]
    key: str
    explanation: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def unkeyed(self) -> UnkeyedQuestion:
        return UnkeyedQuestion(id=self.id, stem=self.stem, options=self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One graded output of a policy: an attempt (task `solve`) or a correction (task `repair` or `check`).

    Its key is (iteration, question_id, task, attempt, sample). `attempt` is the number of the attempt: for a
    correction, of the one that it corrects. `sample` counts the corrections of one attempt and is 0 for an attempt.
    `output` is what the policy wrote; `trace` is the whole reasoning trace that it stands for: for a correction, the
    attempt's steps before the first wrong one followed by the redone ones.
    """

    iteration: int
    question_id: str
    task: Task
    attempt: int
    sample: int
    version: int
    output: str
    trace: str
    finished: bool
    num_tokens: int
    answer: str
    """The letters answered; empty if the output was cut off or could not be parsed."""
    agrees: bool
    """Whether the answer's option text is that of its letters."""
    correct: bool
    first_wrong_step: int | None = None
    """For a correction: the step that it calls wrong (one past the last step for the answer); None if it kept all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """One training example for DPO: `chosen` is preferred to `rejected` as a continuation of `prompt` + `prefix`.

    For whole trajectories `prefix` and `rest` are empty. In step mode `chosen` and `rejected` are single steps,
    `prefix` the steps before them, and `rest` what the chosen trace goes on with: the likelihood term takes all three
    of its parts, the preference only the step. `reason` says why the pair was kept.

    Its key is (iteration, question_id, source, attempt). `attempt` is the number of the attempt that is rejected, or
    whose corrections are compared.
    """

    iteration: int
    question_id: str
    source: PairSource
    attempt: int
    prompt: str
    prefix: str
    chosen: str
    rejected: str
    rest: str
    chosen_version: int
    rejected_version: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """One training example for SFT: `response` is what the student should write after `prompt`."""

    question_id: str
    task: Task
    prompt: str
    response: str
