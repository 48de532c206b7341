"""Has turns written by the team, block by block; each block is kept on disk as a part, which no resumed run redoes."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medcritical_ray.config import SamplingConfig
from medcritical_ray.game import Role, Session
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import Request, Turn
from medcritical_ray.run.tables import count_rows, iter_columns, missing_parts, write_part


def play(
    session: Session,
    directory: Path,
    role: Role,
    sampling: SamplingConfig,
    version: int,
    num_blocks: int,
    turns_of_block: Callable[[int], list[Turn]],
) -> dict[str, Any]:
    """Writes the trajectories of every block that is still missing, and counts those of all blocks."""
    missing = missing_parts(directory, num_blocks)
    under_way: dict[int, list[Turn]] = {}

    def requests() -> Iterator[tuple[int, list[Request]]]:
        for block in missing:
            under_way[block] = turns_of_block(block)
            yield block, [turn.request(session.config.run.seed) for turn in under_way[block]]

    label = f"{directory.parent.name}/{directory.name}"
    for num_written, (block, completions) in enumerate(session.team.write(role, version, requests(), sampling), 1):
        turns = under_way.pop(block)
        trajectories = [turn.trajectory(done, version) for turn, done in zip(turns, completions, strict=True)]
        write_part(directory, block, trajectories, Trajectory)
        session.progress.advance(label, num_blocks - len(missing) + num_written, num_blocks)
    return count_trajectories(directory)


def write_nothing(directory: Path, num_blocks: int) -> dict[str, Any]:
    """Leaves every block without a trajectory."""
    for block in range(num_blocks):
        write_part(directory, block, [], Trajectory)
    return count_trajectories(directory)


def count_trajectories(directory: Path) -> dict[str, Any]:
    """How many trajectories the parts hold, and how many of them have a right answer, a wrong one, or none."""
    counts: Counter[str] = Counter()
    for part in iter_columns(directory, ("task", "correct", "answer", "num_tokens")):
        for task, correct, answer in zip(part["task"], part["correct"], part["answer"], strict=True):
            counts[f"{task}_{'right' if correct else 'wrong' if answer else 'unreadable'}"] += 1
        counts["num_tokens"] += sum(part["num_tokens"])
    return {"num_trajectories": count_rows(directory), **dict(sorted(counts.items()))}
