"""Exam questions from files: read, checked at the door, bad rows set aside, split without overlap."""

from medcritical_ray.formats import Format
from medcritical_ray.questions.contamination import Contamination, SharedStems, shared_stems, without_stems_of
from medcritical_ray.questions.door import BadRow
from medcritical_ray.questions.quarantine import Quarantine
from medcritical_ray.questions.readers import Reading, how_read, read_questions
from medcritical_ray.questions.readers.native import write_questions
from medcritical_ray.questions.splits import Splits, draw, normalised_stem, split_questions, stem_hash

__all__ = [
    "BadRow",
    "Contamination",
    "Format",
    "Quarantine",
    "Reading",
    "SharedStems",
    "Splits",
    "draw",
    "how_read",
    "normalised_stem",
    "read_questions",
    "shared_stems",
    "split_questions",
    "stem_hash",
    "without_stems_of",
    "write_questions",
]
