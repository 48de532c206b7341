"""Config of what policies write, what becomes pairs, and how a policy is judged."""

import math
from typing import Literal

from pydantic import Field, field_validator

from medcritical_ray.config.part import Part
from medcritical_ray.records import PairSource


class SamplingConfig(Part):
    temperature: float = Field(default=1.0, ge=0, le=2, description="0 is greedy decoding.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Probability mass that is sampled from.")
    max_tokens: int = Field(default=1024, ge=1, description="New tokens, at most; what is cut off counts as wrong.")


class GenerateConfig(Part):
    num_questions: int | None = Field(
        default=None,
        ge=1,
        description="Training questions per iteration, the next ones in turn, those of stage 1 last; None means all.",
    )
    num_attempts: int = Field(default=4, ge=1, description="Attempts per question (K).")
    sampling: SamplingConfig = SamplingConfig()


class CorrectConfig(Part):
    num_corrections: int = Field(default=4, ge=1, description="Corrections per attempt (M).")
    sampling: SamplingConfig = SamplingConfig()
    policy: Literal["latest", "initial", "teacher"] = Field(
        default="latest",
        description="The corrector: the policy of this iteration, that of stage 1 throughout, or stage 1's teacher, "
        "who writes one repair of each wrong attempt (a control arm).",
    )
    checked_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of right attempts that the corrector checks without being told so."
    )

    @property
    def num_repairs(self) -> int:
        """Repairs of one wrong attempt."""
        return 1 if self.policy == "teacher" else self.num_corrections


class PairsConfig(Part):
    mode: Literal["trajectory", "step"] = Field(
        default="step", description="Whole traces, or the first steps that differ."
    )
    shares: dict[PairSource, float] = Field(
        default={"correction": 0.5, "own": 0.5}, description="Share of each source among the pairs; they sum to 1."
    )
    max_pairs: int = Field(default=20_000, ge=1, description="Pairs per iteration, at most.")
    max_pairs_per_question: int = Field(default=2, ge=1, description="Pairs per question and source, at most.")
    agree_on: Literal["key", "steps"] = Field(
        default="key",
        description="A repair is trusted if enough of its attempt's repairs reach the key; or, where students say the "
        "same in the same words, if enough of the question's right tries, attempts and repairs alike, have its steps. "
        "Right attempts are held to the steps, too.",
    )
    min_agreement: int = Field(default=2, ge=1, description="Repairs or tries that must agree.")
    max_length_ratio: float = Field(
        default=2.0, ge=1, description="Characters of the longer trace over the shorter's, at most."
    )
    min_edit_distance_chars: int = Field(
        default=10, ge=0, description="Characters in which the two traces differ, at least (Levenshtein)."
    )
    require_agreement_of_answer: bool = Field(
        default=True, description="A chosen text must state the option's text that belongs to its letters."
    )
    previous_share: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an iteration's pairs that come from earlier iterations."
    )

    @field_validator("shares")
    @classmethod
    def _shares_sum_to_one(cls, shares: dict[PairSource, float]) -> dict[PairSource, float]:
        if any(share < 0 for share in shares.values()):
            raise ValueError("must not be negative")
        if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"must sum to 1, not to {sum(shares.values()):g}")
        return shares

    @property
    def take_corrections(self) -> bool:
        """Whether there is a source that needs them: all but the student's own attempts."""
        return any(share > 0 for source, share in self.shares.items() if source != "own")


class EvaluateConfig(Part):
    num_passes: int = Field(
        default=4, ge=0, description="Sampled attempts per question for pass@K; 0 leaves it out. Accuracy is greedy."
    )
    accept_p_value: float = Field(
        default=0.05, ge=0, le=1, description="A policy worse on dev at this level (paired test) is not adopted."
    )
    corrected_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of the questions on which the corrector is evaluated, too."
    )
