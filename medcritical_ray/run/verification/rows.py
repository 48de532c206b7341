"""The rows of a run's parts: whether each can be read, has the right columns, and is there once by its key."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Demonstration, PreferencePair, Trajectory
from medcritical_ray.rollouts import Turn
from medcritical_ray.run.directory import STAGE_ONE
from medcritical_ray.run.questions import split_path
from medcritical_ray.run.tables import missing_parts, part_path, part_paths, read_part
from medcritical_ray.run.verification.chain import playing_version
from medcritical_ray.run.verification.inspection import Inspection
from medcritical_ray.run.verification.markers import iterations_of
from medcritical_ray.run.verification.rollouts import Rollout, rollouts_of
from medcritical_ray.teaching.iteration_reviews import Review

Key = tuple[int, str, str, int, int]
"""Of a trajectory: iteration, question, task, attempt, sample."""


def inspect_rows(inspection: Inspection, config: Config) -> None:
    """Blames parts that cannot be read or lack rows, have some twice, or some that nobody asked for."""
    can_compare = _questions_are_whole(inspection)
    for iteration in iterations_of(inspection.run):
        for rollout in _rollouts(inspection, config, iteration) if can_compare else ():
            _inspect_rollout(inspection, rollout, iteration)
        for name in ("candidates", "pairs"):
            _inspect_pairs(inspection, iteration, name)
        for phase, name in (("teach", "teaching"), ("correct", "lessons")) if iteration == STAGE_ONE else ():
            _inspect_demonstrations(inspection, phase, name)
        for part, reviews in _rows(inspection, iteration, "reviews", Review):
            _blame_doubles(inspection, part, [(row.question_id, row.attempt) for row in reviews])


def _questions_are_whole(inspection: Inspection) -> bool:
    """Reads all questions; nothing can be said of the rows if there are none, or some cannot be read."""
    files = [split_path(inspection.run, split) for split in ("train", "dev", "test")]
    for file in files:
        with inspection.blaming(file) if file.exists() else nullcontext():
            for _ in QuestionSet.whole(file) if file.exists() else ():
                pass
    is_whole = all(file.exists() and not inspection.is_blamed(file) for file in files)
    if not is_whole and iterations_of(inspection.run):
        inspection.found.notes.append("rows are not compared with the questions, which cannot be read")
    return is_whole


def _rollouts(inspection: Inspection, config: Config, iteration: int) -> Iterator[Rollout]:
    """None, where it cannot be read which policy played, which is told already."""
    try:
        playing = playing_version(inspection.run, iteration)
    except UserError:
        return
    yield from rollouts_of(inspection.run, config, iteration, playing)


def _inspect_rollout(inspection: Inspection, rollout: Rollout, iteration: int) -> None:
    for part, rows in _rows_below(inspection, rollout.directory, Trajectory):
        versions = {row.version for row in rows} - {rollout.version}
        if versions and rollout.version is not None:
            inspection.blame(part, f"was written by version {min(versions)}, not {rollout.version}")
        block = int(part.stem.removeprefix("part-"))
        try:
            turns = rollout.turns(block) if block < rollout.num_blocks else []
        except UserError:  # the attempts that were to be corrected cannot be read, and are blamed themselves
            continue
        _blame_keys(inspection, part, [_key(row) for row in rows], [_key_of_turn(turn) for turn in turns])
    if inspection.run.done(iteration, rollout.phase):
        for block in missing_parts(rollout.directory, rollout.num_blocks):
            inspection.blame(part_path(rollout.directory, block), "is missing")


def _key(row: Trajectory) -> Key:
    return row.iteration, row.question_id, row.task, row.attempt, row.sample


def _key_of_turn(turn: Turn) -> Key:
    return turn.iteration, turn.question.id, turn.task, turn.attempt_number, turn.sample


def _blame_keys(inspection: Inspection, part: Path, found: list[Key], wanted: list[Key]) -> None:
    missing, strange = set(wanted) - set(found), set(found) - set(wanted)
    if missing:
        inspection.blame(part, f"lacks {len(missing)} of {len(wanted)} rows")
    if strange:
        inspection.blame(part, f"has {len(strange)} rows that nobody asked for")
    _blame_doubles(inspection, part, found)


def _blame_doubles(inspection: Inspection, part: Path, keys: list[Any]) -> None:
    if num_doubled := len(keys) - len(set(keys)):
        inspection.blame(part, f"has {num_doubled} rows twice, by their keys")


def _inspect_pairs(inspection: Inspection, iteration: int, name: str) -> None:
    """No pair is there twice, and as many as the marker says: those of earlier iterations are counted apart."""
    seen: set[int] = set()  # hashes of keys: a run may have millions of candidates
    sources: Counter[str] = Counter()
    num_earlier = 0
    for part, pairs in _rows(inspection, iteration, name, PreferencePair):
        hashes = {hash((pair.iteration, pair.question_id, pair.source, pair.attempt)) for pair in pairs}
        if num_doubled := len(pairs) - len(hashes - seen):
            inspection.blame(part, f"has {num_doubled} pairs that are there already, by their keys")
        seen |= hashes
        sources.update(pair.source for pair in pairs if pair.iteration == iteration)
        num_earlier += sum(pair.iteration != iteration for pair in pairs)
    earlier = {"earlier_pairs": num_earlier} if name == "pairs" else {}
    _blame_counts(inspection, iteration, "pair", name, {name: dict(sources), **earlier})


def _inspect_demonstrations(inspection: Inspection, phase: str, name: str) -> None:
    parts = _rows(inspection, STAGE_ONE, name, Demonstration)
    tasks = Counter(row.task for _, rows in parts for row in rows)
    _blame_counts(inspection, STAGE_ONE, phase, name, {"demonstrations": dict(tasks)})


def _blame_counts(inspection: Inspection, iteration: int, phase: str, name: str, found: dict[str, Any]) -> None:
    """Where a phase is done and its marker, like all parts, can be read."""
    run, directory = inspection.run, inspection.run.iteration(iteration) / name
    if not run.done(iteration, phase) or any(map(inspection.is_blamed, part_paths(directory))):
        return
    with inspection.blaming(run.phase_file(iteration, phase)):
        result = run.result(iteration, phase)
        for key, number in found.items():
            if key in result and _without_zeros(result[key]) != number:
                inspection.blame(directory, f"holds {number} as {key}, but {phase} left {result[key]}")


def _without_zeros(counts: Any) -> Any:
    return {key: number for key, number in counts.items() if number} if isinstance(counts, dict) else counts


def _rows(inspection: Inspection, iteration: int, name: str, record: type[Any]) -> Iterator[tuple[Path, list[Any]]]:
    return _rows_below(inspection, inspection.run.iteration(iteration) / name, record)


def _rows_below(inspection: Inspection, directory: Path, record: type[Any]) -> Iterator[tuple[Path, list[Any]]]:
    """The parts of a directory and their rows, without those that are blamed already, or now, as unreadable."""
    for part in part_paths(directory):
        rows: list[Any] | None = None
        if not inspection.is_blamed(part):
            with inspection.blaming(part):
                rows = read_part(part, record)
        if rows is not None:
            inspection.found.num_rows += len(rows)
            yield part, rows
