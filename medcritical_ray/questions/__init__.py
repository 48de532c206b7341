"""Exam questions from files: read, checked at the door, bad rows set aside, split without overlap."""

from medcritical_ray.questions.door import BadRow
from medcritical_ray.questions.quarantine import Quarantine
from medcritical_ray.questions.readers import Format, read_questions
from medcritical_ray.questions.readers.native import write_questions
from medcritical_ray.questions.splits import (
    Splits,
    draw,
    normalised_stem,
    shared_stems,
    split_questions,
    without_stems_of,
)

__all__ = [
    "BadRow",
    "Format",
    "Quarantine",
    "Splits",
    "draw",
    "normalised_stem",
    "read_questions",
    "shared_stems",
    "split_questions",
    "without_stems_of",
    "write_questions",
]
