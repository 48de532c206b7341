"""The engines of a pool: how many are wanted and left, and what is told of them, live and in a run's events."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medcritical_ray.engines.health import STATES, Health
from medcritical_ray.telling.metrics import Reading

ENGINES_START = "engines start"
ENGINE_DIED, ENGINE_RESTARTED, ENGINE_RETIRED = "engine died", "engine restarted", "engine retired"

Note = Callable[..., None]
"""Who is told an event, by its name, and its fields of plain values."""


def unnoted(event: str, **fields: Any) -> None:
    """Nobody is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """What an engine is at. `version` is the policy version that it serves, or is to serve."""

    name: str
    version: int
    health: Health
    num_requests: int


def num_engines_wanted(num_blocks: int, *, per_engine: int, least: int, most: int) -> int:
    """As many engines as the blocks that are in work or wait would keep busy, within bounds."""
    return max(least, min(most, -(-num_blocks // per_engine)))


def num_left(engines: Iterable[Health]) -> int:
    """Those that are not retired."""
    return sum(each.state != "retired" for each in engines)


def num_started(engines: Iterable[Health]) -> int:
    """Those that serve, or will once they have taken a new version."""
    return sum(each.is_there and each.state != "restarting" for each in engines)


def is_misconfigured(engines: Sequence[Health]) -> bool:
    """Whether a start failed before any engine has served. Others would fail like it, since its settings or its model
    are wrong; whatever else happens to an engine may be its machine's doing."""
    return any(each.failure == "start failed" for each in engines) and not any(each.has_served for each in engines)


def told(engines: Iterable[EngineState]) -> str:
    """How each engine is, for people to read."""
    return "; ".join(f"{each.name} is {each.health}" for each in engines)


def note_news(before: EngineState, now: EngineState, note: Note) -> None:
    """Notes that an engine died, was retired for it, or serves again."""
    health = now.health
    told: dict[str, Any] = {"engine": now.name, "version": now.version, "deaths": health.num_deaths}
    if health.num_deaths > before.health.num_deaths:
        note(ENGINE_DIED, **told, cause=f"{health.failure}, {health.cause}")
        if health.state == "retired":
            note(ENGINE_RETIRED, **told)
    elif before.health.failure and health.is_serving:
        note(ENGINE_RESTARTED, **told)


def fleet_readings(role: str, engines: Iterable[EngineState]) -> Iterator[Reading]:
    """The readings of engines that play `role` now."""
    for engine in engines:
        yield _reading("requests_in_flight", engine, engine.num_requests, role=role)
        yield _reading("engine_policy_version", engine, engine.version)
        yield _reading("engine_restarts", engine, engine.health.num_restarts)
        for state in STATES:
            yield _reading("engines", engine, float(engine.health.state == state), state=state)


def _reading(name: str, engine: EngineState, value: float, **tags: str) -> Reading:
    return Reading(name=f"medcritical_{name}", value=value, tags={"engine": engine.name, **tags})
