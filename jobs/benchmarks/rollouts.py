"""The phase `generate`, as self_play plays it, with a pool that is there already."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.pool import EnginePool
    from medcritical_ray.config import Config, SamplingConfig
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.rollouts import Completion, Request


def play_attempts(pool: "EnginePool", questions: "QuestionSet", config: "Config", directory: Path) -> dict[str, Any]:
    """The phase's counts, and its `seconds`: prompts are made, texts written, graded and kept as parquet in a new
    directory."""
    from medcritical_ray.asked import attempts_at
    from medcritical_ray.game import Session
    from medcritical_ray.play import play

    session = Session(config=config, team=_Writers(pool), progress=_Nobody())  # type: ignore[arg-type]  # none trains
    turns = attempts_at(questions, iteration=1, num_attempts=config.generate.num_attempts)
    started = time.perf_counter()
    counts = play(session, directory, "generator", config.generate.sampling, pool.version, questions.num_blocks, turns)
    return {**counts, "seconds": time.perf_counter() - started}


class _Writers:
    """The part of a team that writes."""

    def __init__(self, pool: "EnginePool") -> None:
        self._pool = pool

    def write(
        self, role: str, version: int, blocks: "Iterable[tuple[int, list[Request]]]", sampling: "SamplingConfig"
    ) -> "Iterator[tuple[int, list[Completion]]]":
        return self._pool.map(blocks, sampling)


class _Nobody:
    """Who is told how far it is."""

    def advance(self, label: str, done: int, total: int) -> None:
        pass
