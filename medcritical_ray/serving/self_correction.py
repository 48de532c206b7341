"""A policy answers, checks its answer, and repairs it once: what it is asked, and what becomes of what it writes."""

from dataclasses import dataclass
from typing import Literal

from medcritical_ray.corrections import read_correction
from medcritical_ray.prompts import correction_of_solve_prompt
from medcritical_ray.trace import answer_of

Outcome = Literal["kept", "corrected", "unreadable answer", "unreadable correction", "no room"]
"""`unreadable answer`: cut off, or its last line answers nothing, so that there is nothing to check;
`unreadable correction`: cut off, or not in the form of one; `no room`: prompt and answer leave too little for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCorrection:
    """`correction` is what the policy wrote when it checked `first_answer`, None if it was not asked; `final` is the
    trace that the two come to. Unless the outcome is `corrected`, that is the first answer."""

    first_answer: str
    correction: str | None
    outcome: Outcome
    first_wrong_step: int | None
    final: str


def check_prompt(prompt: str, answer: str, *, finished: bool) -> str | None:
    """What the policy is asked about its answer to `prompt`; None if the answer cannot be read."""
    trace = _trace(answer)
    if not finished or answer_of(trace) is None:
        return None
    return correction_of_solve_prompt(prompt, trace, "check")


def not_corrected(answer: str, outcome: Outcome) -> SelfCorrection:
    return SelfCorrection(first_answer=answer, correction=None, outcome=outcome, first_wrong_step=None, final=answer)


def corrected(answer: str, written: str, *, finished: bool) -> SelfCorrection:
    """What an answer and the check of it come to. Nothing unreadable replaces an answer."""
    correction = read_correction(_trace(answer), written) if finished else None
    outcome: Outcome = "unreadable correction"
    final, step = answer, None
    if correction is not None:
        step = correction.first_wrong_step
        outcome = "kept" if step is None else "corrected"
        final = answer if step is None else correction.trace
    return SelfCorrection(first_answer=answer, correction=written, outcome=outcome, first_wrong_step=step, final=final)


def _trace(answer: str) -> str:
    """As grading reads an attempt."""
    return "\n".join(answer.strip().splitlines())
