"""Names of models as clients say them: `v0003`, `latest`, and with `:self-correct` after either."""

from dataclasses import dataclass

from medcritical_ray.names import policy_name, version_of

LATEST = "latest"
SELF_CORRECT = ":self-correct"


@dataclass(frozen=True, slots=True)
class ModelId:
    """A policy version, None for the one that the run adopted last, and whether its answers are corrected."""

    version: int | None
    self_correct: bool


def read_model_id(name: str) -> ModelId | None:
    """None if it names no policy."""
    base = name.removesuffix(SELF_CORRECT)
    version = version_of(base)
    if version is None and base != LATEST:
        return None
    return ModelId(version, self_correct=base != name)


def model_name(version: int) -> str:
    return policy_name(version)
