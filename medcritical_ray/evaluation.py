"""What a policy can do, computed from its graded trajectories over every question asked.

Meters take trajectories one by one, and keep a few numbers per question, never a text. A question without
a trajectory, and whatever could not be read or was cut off, counts as wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medcritical_ray.records import Trajectory
from medcritical_ray.statistics import Mean, Proportion, answer_entropy_bits, pass_at_k

GREEDY_ATTEMPT = 0
"""The number of the attempt that answers for the policy in an evaluation; further attempts are samples."""


class _Figures:
    __slots__: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values; a proportion as its counts, value and interval."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: v.to_dict() if isinstance(v, Proportion | Mean) else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFigures(_Figures):
    """One answer per question. The proportions are of all questions; `mean_tokens` is that of the answers written."""

    accuracy: Proportion
    parse_rate: Proportion
    finish_rate: Proportion
    agreement_rate: Proportion
    """Answers whose option text is that of their letters."""
    mean_tokens: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFigures(_Figures):
    """`num_samples` answers per question. `pass_at[k]`: the chance that one of k is right, the mean over all questions.

    `answer_entropy_bits`: how much a question's answers differ, the mean over all questions; unread ones count as one.
    """

    num_samples: int
    mean_accuracy: Mean
    """The accuracy of one sample; its interval is over questions."""
    self_consistency: Proportion
    """Questions whose most frequent answer is right; of equally frequent ones, the first to be given counts."""
    pass_at: dict[int, float]
    answer_entropy_bits: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectorFigures(_Figures):
    """What corrections do to attempts that have an answer. The proportions are of all corrections, read or not."""

    wrong_to_right: Proportion
    """Repairs of wrong attempts that reach the key."""
    wrong_to_right_by_guessing: float
    """What a blind guess among the options that the attempt did not choose would make of `wrong_to_right`."""
    right_to_wrong: Proportion
    """Checks of right attempts after which the answer is wrong."""
    self_corrected: Proportion
    """Checked answers that are right after the check, whatever they were before: what one round of self-correction
    gives, since nobody tells who checks what is right."""
    before_correction: Proportion
    """The same answers before the check: what `self_corrected` is to be compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The figures of one policy on one question set; None where nothing was sampled or corrected."""

    num_questions: int
    answers: AnswerFigures
    samples: SampleFigures | None
    corrector: CorrectorFigures | None

    def to_dict(self) -> dict[str, Any]:
        """All figures side by side, as plain values."""
        merged: dict[str, Any] = {"num_questions": self.num_questions, **self.answers.to_dict()}
        for figures in (self.samples, self.corrector):
            merged |= figures.to_dict() if figures else {}
        return merged


class AnswerMeter:
    """Counts one attempt per question; `question_ids` are all questions asked."""

    def __init__(self, question_ids: Iterable[str]) -> None:
        self._correct: dict[str, bool | None] = dict.fromkeys(question_ids)
        self._counts: Counter[str] = Counter()

    def update(self, attempt: Trajectory) -> None:
        """Raises ValueError if the question is not one of those asked, or is answered already."""
        if self._correct.get(attempt.question_id, False) is not None:
            raise ValueError(f"question {attempt.question_id} was not asked or is answered already")
        self._correct[attempt.question_id] = attempt.correct
        self._counts["answered"] += 1
        self._counts["parsed"] += bool(attempt.answer)
        self._counts["finished"] += attempt.finished
        self._counts["agreed"] += attempt.agrees
        self._counts["tokens"] += attempt.num_tokens

    def result(self) -> AnswerFigures:
        num_questions = len(self._correct)
        return AnswerFigures(
            accuracy=Proportion(sum(self.correct_by_question().values()), num_questions),
            parse_rate=Proportion(self._counts["parsed"], num_questions),
            finish_rate=Proportion(self._counts["finished"], num_questions),
            agreement_rate=Proportion(self._counts["agreed"], num_questions),
            mean_tokens=_mean(self._counts["tokens"], self._counts["answered"]),
        )

    def is_correct(self, question_id: str) -> bool:
        return bool(self._correct[question_id])

    def correct_by_question(self) -> dict[str, bool]:
        """Question id -> whether it was answered rightly, for every question asked."""
        return {question_id: bool(correct) for question_id, correct in self._correct.items()}


class SampleMeter:
    """Counts up to `num_samples` attempts per question; samples that are missing count as wrong."""

    def __init__(self, num_questions: int, num_samples: int) -> None:
        self._num_questions = num_questions
        self._num_samples = num_samples
        self._num_correct: Counter[str] = Counter()
        self._answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._right_answers: dict[str, str] = {}

    def update(self, attempt: Trajectory) -> None:
        """Raises ValueError for more samples of a question, or more questions, than were announced."""
        answers = self._answers[attempt.question_id]
        answers[attempt.answer] += 1
        self._num_correct[attempt.question_id] += attempt.correct
        if attempt.correct:
            self._right_answers[attempt.question_id] = attempt.answer
        if answers.total() > self._num_samples or len(self._answers) > self._num_questions:
            raise ValueError(f"more samples than {self._num_samples} of each of {self._num_questions} questions")

    def result(self) -> SampleFigures:
        entropy_bits = sum(answer_entropy_bits(answers) for answers in self._answers.values())
        missing = [0.0] * (self._num_questions - len(self._num_correct))
        shares = [*(right / self._num_samples for right in self._num_correct.values()), *missing]
        return SampleFigures(
            num_samples=self._num_samples,
            mean_accuracy=Mean.of_samples(shares, self._num_samples),
            self_consistency=Proportion(sum(map(self._majority_is_right, self._answers)), self._num_questions),
            pass_at={k: self._pass_at(k) for k in _powers_of_two_up_to(self._num_samples)},
            answer_entropy_bits=_mean(entropy_bits, self._num_questions),
        )

    def _majority_is_right(self, question_id: str) -> bool:
        votes = [(votes, answer) for answer, votes in self._answers[question_id].items() if answer]
        winner = max(votes, key=lambda each: each[0])[1] if votes else None
        return winner is not None and winner == self._right_answers.get(question_id)

    def _pass_at(self, k: int) -> float:
        estimates = (pass_at_k(self._num_samples, c, k) for c in self._num_correct.values())
        return _mean(sum(estimates), self._num_questions)


def by_label(labels: Mapping[str, Mapping[str, str]], correct: Mapping[str, bool]) -> dict[str, dict[str, Proportion]]:
    """Label -> value -> accuracy, from the labels and the correctness of each question by its id."""
    counts: defaultdict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for question_id, is_correct in correct.items():
        for label, value in labels[question_id].items():
            counts[label][value].append(is_correct)
    return {
        label: {value: Proportion(sum(right), len(right)) for value, right in sorted(values.items())}
        for label, values in sorted(counts.items())
    }


class CorrectorMeter:
    """Counts corrections of answers: `repair` of wrong ones, `check` of any. `guess_chances` are by question id."""

    def __init__(self, guess_chances: Mapping[str, float]) -> None:
        self._guess_chances = guess_chances
        self._counts: Counter[str] = Counter()
        self._guessed = 0.0

    def update(self, correction: Trajectory, *, was_correct: bool) -> None:
        if correction.task == "check":
            self._counts["checked"] += 1
            self._counts["right after check"] += correction.correct
            self._counts["checked right"] += was_correct
            self._counts["broken"] += was_correct and not correction.correct
        else:
            self._counts["repairs"] += 1
            self._counts["repaired"] += correction.correct
            self._guessed += self._guess_chances[correction.question_id]

    def result(self) -> CorrectorFigures:
        return CorrectorFigures(
            wrong_to_right=Proportion(self._counts["repaired"], self._counts["repairs"]),
            wrong_to_right_by_guessing=_mean(self._guessed, self._counts["repairs"]),
            right_to_wrong=Proportion(self._counts["broken"], self._counts["checked right"]),
            self_corrected=Proportion(self._counts["right after check"], self._counts["checked"]),
            before_correction=Proportion(self._counts["checked right"], self._counts["checked"]),
        )


class Evaluator:
    """All meters of one policy: each trajectory goes to the one that its task and number call for, an answer before
    its corrections."""

    def __init__(self, guess_chances: Mapping[str, float], *, num_samples: int = 0) -> None:
        """`guess_chances` has, for every question asked, the chance that a guess repairs a wrong answer."""
        self._num_questions = len(guess_chances)
        self._answers = AnswerMeter(guess_chances)
        self._samples = SampleMeter(len(guess_chances), num_samples) if num_samples else None
        self._corrector = CorrectorMeter(guess_chances)
        self._num_corrections = 0

    def update(self, trajectory: Trajectory) -> None:
        if trajectory.task != "solve":
            self._num_corrections += 1
            self._corrector.update(trajectory, was_correct=self._answers.is_correct(trajectory.question_id))
        elif trajectory.attempt == GREEDY_ATTEMPT:
            self._answers.update(trajectory)
        elif self._samples:
            self._samples.update(trajectory)
        else:
            raise ValueError(f"attempt {trajectory.attempt} of {trajectory.question_id}: no samples were announced")

    def result(self) -> Evaluation:
        return Evaluation(
            num_questions=self._num_questions,
            answers=self._answers.result(),
            samples=self._samples.result() if self._samples else None,
            corrector=self._corrector.result() if self._num_corrections else None,
        )


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


def _powers_of_two_up_to(limit: int) -> list[int]:
    """1, 2, 4 and so on, and the limit itself."""
    powers = [2**exponent for exponent in range(limit.bit_length()) if 2**exponent < limit]
    return [*powers, limit]
