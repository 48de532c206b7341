"""The phase `generate`, as self_play plays it, with a pool that is there already."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.pool import EnginePool
    from medcritical_ray.config import Config, SamplingConfig
    from medcritical_ray.game import AskedBlock, WrittenBlock
    from medcritical_ray.question_set import QuestionSet


def play_attempts(pool: "EnginePool", questions: "QuestionSet", config: "Config", directory: Path) -> dict[str, Any]:
    """The phase's counts, and its `seconds`: prompts are made, texts written, graded and kept as parquet in a new
    directory."""
    from medcritical_ray.asked import attempts_at
    from medcritical_ray.game import Session
    from medcritical_ray.play import Play, Player
    from medcritical_ray.telling.audience import Listener

    session = Session(config=config, team=_Writers(pool), progress=Listener())  # type: ignore[arg-type]  # none trains
    turns = attempts_at(questions, iteration=1, num_attempts=config.generate.num_attempts)
    started = time.perf_counter()
    player = Player("generator", pool.version, Path())
    counts = Play(session, directory, player, config.generate.sampling, questions.num_blocks, turns).finish()
    return {**counts, "seconds": time.perf_counter() - started}


class _Writers:
    """The part of a team that writes, with a policy that is served already."""

    def __init__(self, pool: "EnginePool") -> None:
        self._pool = pool

    def serve(self, role: str, version: int, policy_dir: Path) -> None:
        pass

    def write(
        self, role: str, version: int, blocks: "Iterable[AskedBlock | None]", sampling: "SamplingConfig", **_: Any
    ) -> "Iterator[WrittenBlock | None]":
        return self._pool.map(blocks, sampling)
