"""Proportions with their intervals, exact paired tests, and what K samples say about a policy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, pvariance, stdev
from typing import Any, Self

import numpy as np
from scipy.stats import binomtest, entropy, permutation_test, t

from medcritical_ray.errors import UserError


def percent(share: float) -> str:
    """A share in [0, 1] as people read it."""
    return f"{100 * share:.1f} %"


def with_interval(figures: Mapping[str, Any]) -> str:
    """A proportion or a mean, as its `to_dict` has it, as people read it: "57.3 % [54.2, 60.3]"."""
    return f"{percent(figures['value'])} [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"


def with_count(figures: Mapping[str, Any]) -> str:
    """As `with_interval`, and of how many: "57.3 % [54.2, 60.3] (n=1,000)"."""
    return f"{with_interval(figures)} (n={figures['n']:,})"


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of k successes in n trials (Wilson, 1927); (0, 1) when nothing was tried."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(k, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """The two-sided exact p-value of McNemar's test (1947): `only_a` items that only a got right, `only_b` only b.

    Under the hypothesis that a and b are equally good, each such item is as likely to fall to one as to the other.
    """
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate, from n samples of which c are right, that at least one of k samples is right.

    1 - C(n - c, k) / C(n, k), equation 1 of Chen et al. (2021), arXiv 2107.03374. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} cannot be estimated from {c} right of {n} samples")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def answer_entropy_bits(counts: Mapping[str, int]) -> float:
    """The Shannon entropy, in bits, of answers that occurred `counts` times; 0 if all agree or there are none."""
    return float(entropy(list(counts.values()), base=2)) if sum(counts.values()) else 0.0


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of n shares, each in [0, 1], with its 95 % interval, which stays within that."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """By Student's t, cut to [0, 1]; of fewer than two values, all there is."""
        n = len(values)
        mean = fmean(values) if values else 0.0
        margin = float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n) if n > 1 else 0.0
        return cls(value=mean, low=max(0.0, mean - margin), high=min(1.0, mean + margin), n=n)

    @classmethod
    def of_samples(cls, shares: Sequence[float], num_samples: int) -> Self:
        """Of the shares of `num_samples` samples of each question that are right; the interval is over questions.

        It is Wilson's for the effective number of samples: that of independent ones whose mean would vary as much,
        mean * (1 - mean) / (variance of the shares / n), at most all of them, and n where the shares do not differ.
        Student's t with n - 1 degrees of freedom stands for the normal quantile (Franco, Little, Louis and Slud, 2019,
        Journal of Survey Statistics and Methodology). With one sample of each of many questions it is Wilson's own.
        """
        n = len(shares)
        mean = fmean(shares) if shares else 0.0
        if n <= 1:
            return cls(value=mean, low=0.0, high=1.0, n=n)
        variance = pvariance(shares)
        effective = min(n * num_samples, n * mean * (1 - mean) / variance) if variance else n
        weight = float(t.ppf(0.975, n - 1)) ** 2 / effective
        centre = (mean + weight / 2) / (1 + weight)
        margin = math.sqrt(weight * mean * (1 - mean) + weight**2 / 4) / (1 + weight)
        return cls(value=mean, low=max(0.0, centre - margin), high=min(1.0, centre + margin), n=n)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Proportion:
    """k of n, with its 95 % Wilson interval; as a text see `with_count`. 0 of 0 has the value 0."""

    k: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise ValueError(f"{self.k} of {self.n} is no proportion")

    @property
    def value(self) -> float:
        return self.k / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.k, self.n)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {"k": self.k, "n": self.n, "value": self.value, "low": low, "high": high}

    def __str__(self) -> str:
        return with_count(self.to_dict())


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedComparison:
    """Two policies on the same questions; the p-value is that of McNemar's exact test, two-sided."""

    num_questions: int
    both: int
    only_a: int
    only_b: int
    p_value: float

    @property
    def gain(self) -> float:
        """The accuracy of b minus that of a, between -1 and 1."""
        return (self.only_b - self.only_a) / self.num_questions

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain}


def compare(a: Mapping[str, bool], b: Mapping[str, bool]) -> PairedComparison:
    """Compares two policies by question id. Raises UserError unless both answered the same questions, at least one."""
    if not a or a.keys() != b.keys():
        shared = len(a.keys() & b.keys())
        raise UserError(f"policies are compared on the same questions: {len(a)} and {len(b)} given, {shared} in common")
    only_a = sum(a[question_id] and not b[question_id] for question_id in a)
    only_b = sum(b[question_id] and not a[question_id] for question_id in a)
    return PairedComparison(
        num_questions=len(a),
        both=sum(a.values()) - only_a,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_exact(only_a, only_b),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedsComparison:
    """Two policies on the same questions with several seeds; see `gain_over_seeds`."""

    num_questions: int
    num_seeds: int
    gain: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def gain_over_seeds(a: Sequence[Mapping[str, bool]], b: Sequence[Mapping[str, bool]]) -> SeedsComparison:
    """The mean accuracy of b minus that of a, each with one mapping of question id to rightness per seed.

    The p-value is of a two-sided permutation test that exchanges a and b question by question, with all seeds of a
    question at once: answers to the same question are not independent. It speaks of these seeds, and is at least 2e-4
    (9,999 permutations).
    """
    ids = list(a[0])
    means_a, means_b = (np.mean([[seed[i] for i in ids] for seed in seeds], axis=0) for seeds in (a, b))
    result = permutation_test(
        (means_b, means_a),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        rng=0,
    )
    return SeedsComparison(
        num_questions=len(ids), num_seeds=len(a), gain=float(result.statistic), p_value=float(result.pvalue)
    )
