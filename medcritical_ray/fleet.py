"""What the engines of a pool are at, and the readings that this comes to."""

from collections.abc import Iterable
from dataclasses import dataclass

from medcritical_ray.metrics import Reading


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """`version` is the policy version that the engine serves, or is about to unless `is_serving`. An engine that is not
    there serves nothing; `num_replacements` counts its later starts, after a failure or for want of it."""

    name: str
    version: int
    is_serving: bool
    num_requests: int
    num_replacements: int


def fleet_readings(role: str, engines: Iterable[EngineState]) -> list[Reading]:
    """The readings of engines that play `role` now."""
    return [
        Reading(name=f"medcritical_{name}", value=value, tags={"engine": engine.name, **tags})
        for engine in engines
        for name, value, tags in (
            ("requests_in_flight", engine.num_requests, {"role": role}),
            ("engine_serving", float(engine.is_serving), {}),
            ("engine_policy_version", engine.version, {}),
            ("engine_replacements", engine.num_replacements, {}),
        )
    ]
