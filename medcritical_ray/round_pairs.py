"""Pairs a whole round, block by block: candidates first, then those that the shares of their sources let through."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medcritical_ray.config import PairsConfig
from medcritical_ray.game import Game
from medcritical_ray.pairing import PairingCounts, make_pairs
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import PreferencePair, Trajectory
from medcritical_ray.seeds import uniform
from medcritical_ray.tables import count_rows, iter_parts, part_path, part_paths, read_part, write_part


def pair_round(game: Game, iteration: int, questions: QuestionSet) -> dict[str, Any]:
    """Writes the round's pairs; returns their numbers by source, the drops by reason, and what luck would explain."""
    directory, counts = game.run.iteration(iteration), PairingCounts()
    for block in range(questions.num_blocks):
        write_part(directory / "candidates", block, _candidates(questions, directory, block, game, counts), PreferencePair)
    kept_shares = _kept_shares(counts.pairs, game.config.pairs)
    for block in range(questions.num_blocks):
        write_part(directory / "pairs", block, _drawn(directory, block, kept_shares, counts), PreferencePair)
    earlier = list(_earlier_pairs(game, iteration, count_rows(directory / "pairs")))
    write_part(directory / "pairs", questions.num_blocks, earlier, PreferencePair)
    return _round_counts(directory / "pairs", counts, game.right_line_by_line)


def _candidates(
    questions: QuestionSet, directory: Path, block: int, game: Game, counts: PairingCounts
) -> Iterator[PreferencePair]:
    trajectories: dict[str, list[Trajectory]] = {}
    for name in ("attempts", "corrections"):
        for trajectory in read_part(part_path(directory / name, block), Trajectory):
            trajectories.setdefault(trajectory.question_id, []).append(trajectory)
    for question in questions.block(block):
        yield from make_pairs(question, trajectories.get(question.id, []), game.config.pairs, counts)


def _kept_shares(num_candidates: Counter[str], config: PairsConfig) -> dict[str, float]:
    """The share of each source's candidates to keep. A source that falls short of its share is not filled up by others."""
    room = {source: share * config.max_pairs for source, share in config.shares.items()}
    return {source: min(1.0, room[source] / num) for source, num in num_candidates.items()}


def _drawn(
    directory: Path, block: int, kept_shares: dict[str, float], counts: PairingCounts
) -> Iterator[PreferencePair]:
    for position, pair in enumerate(read_part(part_path(directory / "candidates", block), PreferencePair)):
        if uniform("pair", pair.iteration, pair.question_id, pair.source, position) < kept_shares[pair.source]:
            yield pair
        else:
            counts.drops[f"{pair.source}: over the share of its source"] += 1


def _earlier_pairs(game: Game, iteration: int, num_new: int) -> Iterator[PreferencePair]:
    """Pairs of earlier iterations, drawn so that they make up about `previous_share` of all."""
    share = game.config.pairs.previous_share
    directories = [game.run.iteration(number) / "pairs" for number in range(1, iteration)]
    num_earlier = sum(count_rows(directory) for directory in directories)
    wanted = share / (1 - share) * num_new
    for number, directory in enumerate(directories, 1):
        for position, pair in enumerate(iter_parts(directory, PreferencePair)):
            drawn = uniform("earlier pair", iteration, number, position) * num_earlier < wanted
            if drawn and pair.iteration == number:
                yield pair


def _round_counts(
    directory: Path, counts: PairingCounts, right_line_by_line: Callable[[str, str], bool] | None
) -> dict[str, Any]:
    pairs: Counter[str] = Counter()
    right_lines: Counter[str] = Counter()
    for pair in iter_parts(directory, PreferencePair):
        pairs[pair.source] += 1
        if right_line_by_line and pair.source in ("correction", "own"):
            right_lines[pair.source] += right_line_by_line(pair.question_id, pair.prefix + pair.chosen)
    candidates = counts.pairs["correction"]
    return {
        "pairs": dict(pairs),
        "candidates": dict(counts.pairs),
        "dropped": {reason: num for reason, num in sorted(counts.drops.items()) if num},
        "correction_share_explained_by_guessing": min(1.0, counts.num_by_guessing / candidates) if candidates else None,
        "chosen_right_line_by_line": {source: num / pairs[source] for source, num in right_lines.items()},
        "num_parts": len(part_paths(directory)),
    }
