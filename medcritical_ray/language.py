"""The words of each language that questions are asked and answered in. What is written is in the question's own;
what is read may be in any."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from medcritical_ray.records import Task, UnkeyedQuestion

_IDEOGRAPH = re.compile("[㐀-鿿]")
_WORD = re.compile("[A-Za-z]{4,}")
"""Shorter ones are mostly units and abbreviations, which questions in Chinese are full of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """What a prompt says below a question, the words that mark the lines of traces and corrections, before a colon, and
    what a correction says behind its own: that it keeps all, what is wrong, and why if nothing better is known.

    The punctuation of marks is the same in all, so that an answer stands on its line as it does among the options.
    """

    instructions: Mapping[Task, str] = field(hash=False)
    attempt: str
    thought: str
    step: str
    key: str
    answer: str
    check: str
    kept: str
    step_is_wrong: str
    answer_is_wrong: str
    leads_elsewhere: str


ENGLISH = Language(
    instructions={
        "solve": "Solve the question step by step.",
        "repair": "The attempt is wrong. Find its first wrong step and redo it from there.",
        "check": "Check the attempt. Keep it if every step is right, else redo it from its first wrong step.",
    },
    attempt="Attempt",
    thought="Thought",
    step="Step",
    key="key",
    answer="Answer",
    check="Check",
    kept="every step is right.",
    step_is_wrong="step {} is wrong",
    answer_is_wrong="the answer is wrong",
    leads_elsewhere="it does not lead to the answer.",
)

CHINESE = Language(
    instructions={
        "solve": "请逐步解答该题。",
        "repair": "以上解答有误。请找出第一个错误的步骤，并从该步起重做。",
        "check": "请检查以上解答。若每一步都正确，则保留；否则从第一个错误的步骤起重做。",
    },
    attempt="解答",
    thought="思路",
    step="步骤",
    key="关键",
    answer="答案",
    check="检查",
    kept="每一步都正确。",
    step_is_wrong="步骤 {} 有误",
    answer_is_wrong="答案有误",
    leads_elsewhere="由此得不出答案。",
)

LANGUAGES = (ENGLISH, CHINESE)


def language_of(question: UnkeyedQuestion) -> Language:
    """Chinese if the stem and the options have more ideographs than Latin words, else English."""
    text = " ".join([question.stem, *(option.text for option in question.options)])
    return CHINESE if len(_IDEOGRAPH.findall(text)) > len(_WORD.findall(text)) else ENGLISH
