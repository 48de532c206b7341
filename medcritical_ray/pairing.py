"""How preference pairs are made: from one question's graded attempts and corrections, with every drop counted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scipy.stats import binom

from medcritical_ray.config import PairsConfig
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import PairSource, PreferencePair, Question, Task, Trajectory


@dataclass(slots=True)
class PairingCounts:
    """What became of the candidates: pairs by source, drops by reason, and what luck would have made.

    `num_by_guessing` is the expected number of `correction` pairs if every correction were a blind guess among the
    options that the attempt did not choose.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    num_by_guessing: float = 0.0


def make_pairs(
    question: Question, trajectories: Sequence[Trajectory], config: PairsConfig, counts: PairingCounts
) -> list[PreferencePair]:
    """All pairs of one question from one iteration's trajectories, at most `max_pairs_per_question` of each source."""
    maker = _PairMaker(question, trajectories, config, counts)
    kept: list[PreferencePair] = []
    for source, make in maker.sources().items():
        if config.shares.get(source, 0.0) > 0:
            pairs = list(make())
            counts.drops[f"{source}: over the limit per question"] += max(0, len(pairs) - config.max_pairs_per_question)
            kept += pairs[: config.max_pairs_per_question]
    counts.pairs.update(pair.source for pair in kept)
    return kept


class _PairMaker:
    def __init__(
        self, question: Question, trajectories: Sequence[Trajectory], config: PairsConfig, counts: PairingCounts
    ) -> None:
        self.question = question
        self.config = config
        self.counts = counts
        self.attempts = [t for t in trajectories if t.task == "solve"]
        self.corrections: dict[tuple[Task, int], list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            if trajectory.task != "solve":
                self.corrections[trajectory.task, trajectory.attempt].append(trajectory)

    def sources(self):
        return {
            "correction": self.correction_pairs,
            "own": self.own_pairs,
            "repair": self.repair_pairs,
            "keep": self.keep_pairs,
        }

    def correction_pairs(self) -> Iterable[PreferencePair]:
        """A repair that reaches the key, preferred to the attempt that it repairs."""
        for attempt in self._wrong_attempts("correction"):
            repairs = self.corrections["repair", attempt.attempt]
            self.counts.num_by_guessing += self._chance_of_guessing(len(repairs))
            repaired = self._agreed_repairs(repairs, "correction")
            if repaired:
                chosen = _most_common(repaired)
                reason = f"{len(repaired)} of {len(repairs)} repairs reach the key"
                yield from self._pair("correction", self._solve(), chosen.trace, attempt.trace, chosen, attempt, reason)

    def own_pairs(self) -> Iterable[PreferencePair]:
        """A right attempt, preferred to a wrong one."""
        right = [t for t in self.attempts if t.correct and self._answer_is_sound(t)]
        for attempt in self._wrong_attempts("own"):
            if right:
                chosen = _most_common(right)
                reason = f"{len(right)} of {len(self.attempts)} attempts reach the key"
                yield from self._pair("own", self._solve(), chosen.trace, attempt.trace, chosen, attempt, reason)
            else:
                self.counts.drops["own: no right attempt"] += 1

    def repair_pairs(self) -> Iterable[PreferencePair]:
        """For the corrector: a repair that reaches the key, preferred to one of the same attempt that does not."""
        for attempt in self._wrong_attempts("repair"):
            repairs = self.corrections["repair", attempt.attempt]
            failed = [t for t in repairs if t.answer and not t.correct]
            repaired = self._agreed_repairs(repairs, "repair")
            if repaired and failed:
                chosen, rejected = _most_common(repaired), failed[0]
                prompt = correction_prompt(self.question.unkeyed(), attempt.trace, "repair")
                yield from self._pair("repair", prompt, chosen.output, rejected.output, chosen, rejected, "repaired")

    def keep_pairs(self) -> Iterable[PreferencePair]:
        """For the corrector: a check that kept a right attempt, preferred to one that broke it."""
        for attempt in self.attempts:
            checks = self.corrections["check", attempt.attempt]
            kept = [t for t in checks if attempt.correct and t.correct and t.first_wrong_step is None]
            broken = [t for t in checks if attempt.correct and t.answer and not t.correct]
            if kept and broken:
                prompt = correction_prompt(self.question.unkeyed(), attempt.trace, "check")
                yield from self._pair("keep", prompt, kept[0].output, broken[0].output, kept[0], broken[0], "kept")

    def _wrong_attempts(self, source: PairSource) -> Iterable[Trajectory]:
        """Wrong attempts with an answer: what was cut off or unreadable teaches nothing about reasoning."""
        for attempt in self.attempts:
            if not attempt.answer:
                self.counts.drops[f"{source}: attempt unfinished or unreadable"] += 1
            elif not attempt.correct:
                yield attempt

    def _agreed_repairs(self, repairs: list[Trajectory], source: PairSource) -> list[Trajectory]:
        """The repairs that reach the key, if enough do that luck is a poor explanation; else none, counted."""
        repaired = [t for t in repairs if t.correct and self._answer_is_sound(t)]
        if len(repaired) >= self.config.min_agreement:
            return repaired
        reason = "too few repairs agree" if repaired else "no repair reaches the key"
        self.counts.drops[f"{source}: {reason}"] += 1
        return []

    def _answer_is_sound(self, trajectory: Trajectory) -> bool:
        return trajectory.agrees or not self.config.require_agreement_of_answer

    def _chance_of_guessing(self, num_tries: int) -> float:
        others = len(self.question.options) - 1
        return float(binom.sf(self.config.min_agreement - 1, num_tries, 1 / others)) if num_tries else 0.0

    def _solve(self) -> str:
        return solve_prompt(self.question.unkeyed())

    def _pair(
        self, source: PairSource, prompt: str, chosen: str, rejected: str, better: Trajectory, worse: Trajectory, reason: str
    ) -> Iterable[PreferencePair]:
        """The pair if it is within bounds, else nothing, counted."""
        refused = _out_of_bounds(chosen, rejected, self.config)
        if refused:
            self.counts.drops[f"{source}: {refused}"] += 1
            return
        prefix = shared_lines(chosen, rejected) if self.config.mode == "step" else ""
        yield PreferencePair(
            iteration=better.iteration,
            question_id=self.question.id,
            source=source,
            prompt=prompt,
            prefix=prefix,
            chosen=chosen[len(prefix) :],
            rejected=rejected[len(prefix) :],
            chosen_version=better.version,
            rejected_version=worse.version,
            reason=reason,
        )


def shared_lines(text: str, other: str) -> str:
    """The whole lines, with their line breaks, with which both texts begin; never all lines of either."""
    shared = ""
    for line, other_line in zip(text.splitlines()[:-1], other.splitlines()[:-1], strict=False):
        if line != other_line:
            break
        shared += line + "\n"
    return shared


def edit_distance(text: str, other: str) -> int:
    """The number of words to insert, delete or replace to make one text the other (Levenshtein)."""
    left, right = text.split(), other.split()
    row = list(range(len(right) + 1))
    for i, word in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, other_word in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other_word))
    return row[-1]


def _out_of_bounds(chosen: str, rejected: str, config: PairsConfig) -> str | None:
    lengths = sorted((len(chosen.split()), len(rejected.split())))
    if lengths[1] > config.max_length_ratio * lengths[0]:
        return "lengths too different"
    if edit_distance(chosen, rejected) < config.min_edit_distance:
        return "texts too alike"
    return None


def _most_common(trajectories: Sequence[Trajectory]) -> Trajectory:
    """The first of those whose trace occurs most often: agreement on the steps, beyond agreement on the answer."""
    occurrences = Counter(t.trace for t in trajectories)
    return max(trajectories, key=lambda t: occurrences[t.trace])
