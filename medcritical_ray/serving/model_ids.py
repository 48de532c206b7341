"""Names of models as clients say them: `v0003`, `latest`, and with `:self-correct` after either."""

import re
from dataclasses import dataclass

LATEST = "latest"
SELF_CORRECT = ":self-correct"
_VERSION = re.compile(r"v(\d{4,9})")


@dataclass(frozen=True, slots=True)
class ModelId:
    """A policy version, None for the one that the run adopted last, and whether its answers are corrected."""

    version: int | None
    self_correct: bool


def read_model_id(name: str) -> ModelId | None:
    """None if it names no policy."""
    base = name.removesuffix(SELF_CORRECT)
    match = _VERSION.fullmatch(base)
    if base != LATEST and not match:
        return None
    version = int(match[1]) if match else None
    if version is not None and model_name(version) != base:
        return None
    return ModelId(version, self_correct=base != name)


def model_name(version: int) -> str:
    return f"v{version:04d}"
