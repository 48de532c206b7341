"""How preference pairs are made: from one question's graded attempts and corrections, with every drop counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein
from scipy.stats import binom

from medcritical_ray.config import PairsConfig
from medcritical_ray.corrections import is_written_anew
from medcritical_ray.grading import guess_chance
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import PairSource, PreferencePair, Question, Task, Trajectory
from medcritical_ray.trace import first_differing_step, lines_before_step, lines_from_step, steps_of, text_of_step

_OF_TRACES: tuple[PairSource, ...] = ("correction", "own")
"""The sources whose pairs are answers to the question; those of the others are corrections."""


@dataclass(slots=True)
class PairingCounts:
    """What became of the candidates: pairs by source, drops by "source: reason", and what luck would have made.

    `num_agreed` wrong attempts have a repair that enough agree with, before any other bound; `num_by_guessing` would
    have one by luck. Where repairs agree on the key: if each were a blind guess among the options that the attempt did
    not choose. Where tries agree on the steps: if as many repairs did so on the way to the key as on the way to each
    other option, which is an upper bound, since mistakes are shared, too.
    """

    pairs: Counter[PairSource] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    num_agreed: int = 0
    num_by_guessing: float = 0.0

    def drop(self, source: PairSource, reason: str, num: int = 1) -> None:
        if num:
            self.drops[f"{source}: {reason}"] += num


def make_pairs(
    question: Question, trajectories: Sequence[Trajectory], config: PairsConfig, counts: PairingCounts
) -> list[PreferencePair]:
    """All pairs of one question from one iteration's trajectories, at most `max_pairs_per_question` of each source.

    Attempts that are wrong alike make the same pair each: a mistake weighs as often as the policy makes it. Another
    source's pair is made once.
    """
    kept: list[PreferencePair] = []
    for source, make in _PairMaker(question, trajectories, config, counts).sources().items():
        if config.shares.get(source, 0.0) > 0:
            made = list(make())
            known = {_texts(pair) for pair in kept}
            pairs = [pair for pair in made if _texts(pair) not in known]
            kept += pairs[: config.max_pairs_per_question]
            counts.drop(source, "the same pair from another source", len(made) - len(pairs))
            counts.drop(source, "over the limit per question", len(pairs[config.max_pairs_per_question :]))
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
        self.repairs = [t for t in trajectories if t.task == "repair"]
        self.corrections: dict[tuple[Task, int], list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            if trajectory.task != "solve":
                self.corrections[trajectory.task, trajectory.attempt].append(trajectory)
        right = self._right([*self.attempts, *self.repairs])
        self.votes = Counter(steps for steps in map(_steps, right) if steps)

    def sources(self) -> dict[PairSource, Callable[[], Iterator[PreferencePair]]]:
        return {
            "correction": self.correction_pairs,
            "own": self.own_pairs,
            "repair": self.repair_pairs,
            "keep": self.keep_pairs,
        }

    def correction_pairs(self) -> Iterator[PreferencePair]:
        """A repair that reaches the key, preferred to the attempt that it repairs.

        Where tries agree on the steps, all wrong attempts of the question share the repair that most of them agree on.
        """
        for attempt in self._wrong_attempts("correction"):
            repairs = self._repairs_for(attempt)
            self.counts.num_by_guessing += self._chance_of_guessing(repairs)
            repair = self._agreed_repair(repairs, "correction")
            if repair:
                self.counts.num_agreed += 1
                yield from self._pair("correction", self._solve(), repair, attempt, self._reason(repair, repairs))

    def own_pairs(self) -> Iterator[PreferencePair]:
        """A right attempt, preferred to one that is not: a policy drifts to cut off or unreadable ones if none of them
        is ever rejected. Where tries agree on the steps, as many must have those of the right attempt as of a repair.
        """
        right = self._right(self.attempts)
        best = self._most_voted(right) if right else None
        agreed = best and (self.config.agree_on == "key" or self.votes[_steps(best)] >= self.config.min_agreement)
        for attempt in self.attempts:
            if attempt.correct:
                continue
            if best and agreed:
                reason = f"{len(right)} of {len(self.attempts)} attempts reach the key"
                yield from self._pair("own", self._solve(), best, attempt, reason)
            else:
                self.counts.drop("own", "too few tries agree" if best else "no right attempt")

    def repair_pairs(self) -> Iterator[PreferencePair]:
        """For the corrector: a repair that reaches the key, preferred to one of the same attempt that does not."""
        for attempt in self._wrong_attempts("repair"):
            repairs = self.corrections["repair", attempt.attempt]
            repair = self._agreed_repair(repairs, "repair")
            failed = [t for t in repairs if t.answer and not t.correct]
            if repair and failed:
                reason = self._reason(repair, repairs)
                yield from self._pair("repair", self._correct(attempt, "repair"), repair, failed[0], reason)
            elif repair:
                self.counts.drop("repair", "no repair fails")

    def keep_pairs(self) -> Iterator[PreferencePair]:
        """For the corrector: a check that kept a right attempt, preferred to one that broke it."""
        for attempt in self.attempts:
            checks = self.corrections["check", attempt.attempt] if attempt.correct else []
            kept = [t for t in checks if t.correct and t.first_wrong_step is None and self._answer_is_sound(t)]
            broken = [t for t in checks if t.answer and not t.correct]
            if kept and broken:
                reason = f"{len(kept)} of {len(checks)} checks keep the attempt"
                yield from self._pair("keep", self._correct(attempt, "check"), kept[0], broken[0], reason)
            elif checks:
                self.counts.drop("keep", "no check breaks the attempt" if kept else "no check keeps the attempt")

    def _wrong_attempts(self, source: PairSource) -> Iterator[Trajectory]:
        """Wrong attempts that a corrector was shown: those with an answer."""
        for attempt in self.attempts:
            if not attempt.answer:
                self.counts.drop(source, "attempt unfinished or unreadable")
            elif not attempt.correct:
                yield attempt

    def _repairs_for(self, attempt: Trajectory) -> list[Trajectory]:
        return self.repairs if self.config.agree_on == "steps" else self.corrections["repair", attempt.attempt]

    def _agreed_repair(self, repairs: list[Trajectory], source: PairSource) -> Trajectory | None:
        """The repair that reaches the key and most right tries agree with, if enough agree; else None, counted."""
        right = self._right(repairs)
        best = self._most_voted(right) if right else None
        if best and self._num_agreeing(best, right) >= self.config.min_agreement:
            return best
        self.counts.drop(source, "too few repairs agree" if best else "no repair reaches the key")
        return None

    def _num_agreeing(self, repair: Trajectory, right: list[Trajectory]) -> int:
        return self.votes[_steps(repair)] if self.config.agree_on == "steps" else len(right)

    def _most_voted(self, right: list[Trajectory]) -> Trajectory:
        """The first of those whose steps most of the question's right tries share: more than agreeing on the answer."""
        return max(right, key=lambda t: self.votes[_steps(t)])

    def _right(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        return [t for t in trajectories if t.correct and self._answer_is_sound(t)]

    def _reason(self, repair: Trajectory, repairs: list[Trajectory]) -> str:
        right = self._right(repairs)
        if self.config.agree_on == "steps":
            return f"{self._num_agreeing(repair, right)} tries agree on the steps"
        return f"{len(right)} of {len(repairs)} repairs reach the key"

    def _answer_is_sound(self, trajectory: Trajectory) -> bool:
        return trajectory.agrees or not self.config.require_agreement_of_answer

    def _chance_of_guessing(self, repairs: list[Trajectory]) -> float:
        chance = guess_chance(self.question)
        if self.config.agree_on == "key":
            return float(binom.sf(self.config.min_agreement - 1, len(repairs), chance))
        changed = [t for t in repairs if t.answer and not t.correct and t.first_wrong_step is not None]
        votes = Counter((_steps(t), t.answer) for t in changed)
        agreed = {answer for (_, answer), num in votes.items() if num >= self.config.min_agreement}
        return len(agreed) * chance / (1 - chance) if chance < 1 else 1.0

    def _solve(self) -> str:
        return solve_prompt(self.question.unkeyed())

    def _correct(self, attempt: Trajectory, task: Task) -> str:
        return correction_prompt(self.question.unkeyed(), attempt.trace, task)

    def _pair(
        self, source: PairSource, prompt: str, better: Trajectory, worse: Trajectory, reason: str
    ) -> Iterator[PreferencePair]:
        """The pair if it is within bounds, else nothing, counted."""
        texts = _text(better, source), _text(worse, source)
        by_step = self.config.mode == "step" and (source in _OF_TRACES or all(map(is_written_anew, texts)))
        refused = _out_of_bounds(better.trace, worse.trace, self.config)
        if by_step and not refused and not all(map(steps_of, texts)):
            refused = "no steps to compare"
        prefix, chosen, rejected, rest = first_difference(*texts) if by_step else ("", *texts, "")
        if refused or not rejected:
            self.counts.drop(source, refused or "rejected text stops before it differs from the chosen one")
            return
        yield PreferencePair(
            iteration=better.iteration,
            question_id=self.question.id,
            source=source,
            attempt=worse.attempt,
            prompt=prompt,
            prefix=prefix,
            chosen=chosen,
            rejected=rejected,
            rest=rest,
            chosen_version=better.version,
            rejected_version=worse.version,
            reason=reason,
        )


def first_difference(chosen: str, rejected: str) -> tuple[str, str, str, str]:
    """The chosen trace before the first step at which the two differ, that step of either, and the rest of the chosen.

    The rejected trace's rest is left out, since it may well follow from its wrong step: training against it unlearnt
    the form of answers (docs/results.md). Step-DPO (arXiv 2406.18629) compares single steps likewise.
    """
    step = first_differing_step(chosen, rejected)
    rest = lines_from_step(chosen, step + 1) if step <= len(steps_of(chosen)) else ""
    return lines_before_step(chosen, step), text_of_step(chosen, step), text_of_step(rejected, step), rest


def _texts(pair: PreferencePair) -> tuple[str, str, str]:
    """What a pair compares; those of one question have one prompt to each kind of answer."""
    return pair.prompt, pair.prefix + pair.chosen + pair.rest, pair.rejected


def edit_distance(text: str, other: str, *, at_most: int) -> int:
    """The number of characters to insert, delete or replace to make one text the other (Levenshtein), counted up to
    `at_most`: of texts that ran on, all of it would take seconds."""
    return min(Levenshtein.distance(text, other, score_cutoff=at_most), at_most)


def _text(trajectory: Trajectory, source: PairSource) -> str:
    """What a pair compares: whole traces as answers to the question, or what the corrector itself wrote.

    Of a text that was cut off, the whole lines: ending in a line break, they are not taken for a text that ended there.
    """
    text = trajectory.trace if source in _OF_TRACES else trajectory.output.strip()
    return text if trajectory.finished else text[: text.rfind("\n") + 1]


def _out_of_bounds(better: str, worse: str, config: PairsConfig) -> str | None:
    """Why two traces make no pair. Corrections are judged by theirs, too: keeping is short, breaking long."""
    shorter, longer = sorted((len(better), len(worse)))
    if longer > config.max_length_ratio * shorter:
        return "lengths too different"
    least = config.min_edit_distance_chars
    if better == worse or edit_distance(better, worse, at_most=least) < least:
        return "texts too alike"
    return None


def _steps(trajectory: Trajectory) -> tuple[str, ...]:
    return tuple(steps_of(trajectory.trace))
