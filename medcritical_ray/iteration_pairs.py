"""Pairs an iteration, block by block: candidates first, then those that the shares of their sources let through."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import heappush, heappushpop, nsmallest
from pathlib import Path
from typing import Any

from medcritical_ray.config import PairsConfig
from medcritical_ray.game import Game
from medcritical_ray.pairing import PairingCounts, make_pairs
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import PairSource, PreferencePair, Trajectory
from medcritical_ray.run.tables import count_rows, iter_parts, part_path, read_part, write_part
from medcritical_ray.seeds import uniform


def pair_iteration(game: Game, iteration: int, questions: QuestionSet) -> dict[str, Any]:
    """Writes the iteration's pairs; returns their numbers by source, the drops by reason, and what luck would explain.

    The candidates of a source are its pairs and those dropped as over its share.
    """
    directory, config, counts = game.run.iteration(iteration), game.config.pairing, PairingCounts()
    for number in range(1, iteration) if config.previous_share else ():
        game.run.check_left(number, "pair")
    earlier = [game.run.iteration(number) / "pairs" for number in range(1, iteration)]
    max_new = _max_new_pairs(config, earlier)
    highest_draws = _write_candidates(game, iteration, questions, counts, max_new)
    made = _write_drawn(directory, questions.num_blocks, highest_draws, counts)
    num_wanted = round(config.previous_share / (1 - config.previous_share) * made.total())
    mixed_in = _earlier_pairs(earlier, iteration, num_wanted)
    write_part(directory / "pairs", questions.num_blocks, mixed_in, PreferencePair)
    return {
        "pairs": dict(made),
        "earlier_pairs": len(mixed_in),
        "candidates": dict(counts.pairs),
        "dropped": {reason: num for reason, num in sorted(counts.drops.items()) if num},
        "correction_share_explained_by_guessing": (
            min(1.0, counts.num_by_guessing / counts.num_agreed) if counts.num_agreed else None
        ),
        "chosen_right_line_by_line": _right_line_by_line(game, iteration, made),
    }


def _write_candidates(
    game: Game, iteration: int, questions: QuestionSet, counts: PairingCounts, max_new: float
) -> dict[PairSource, float]:
    """Writes every pair that could be made; returns, by source, the highest draw that still finds room. A source short
    of its share is not filled up by others."""
    directory, config = game.run.iteration(iteration), game.config.pairing
    # 0.29 * 100 is a little less than 29
    lowest = {source: _LowestDraws(int(share * max_new + 1e-6)) for source, share in config.shares.items()}
    for block in range(questions.num_blocks):
        game.progress.advance("pairing", block, questions.num_blocks)
        candidates = list(_candidates(directory, questions, block, config, counts))
        write_part(directory / "candidates", block, candidates, PreferencePair)
        for pair, draw in _with_draws(candidates):
            lowest[pair.source].add(draw)
    return {source: draws.highest for source, draws in lowest.items()}


class _LowestDraws:
    """The lowest of the numbers that it is shown, as many as there is room for pairs: candidates may be millions."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._negatives: list[float] = []

    def add(self, draw: float) -> None:
        if len(self._negatives) < self._room:
            heappush(self._negatives, -draw)
        elif self._room:
            heappushpop(self._negatives, -draw)

    @property
    def highest(self) -> float:
        """Of those kept; below all draws if there is none."""
        return -self._negatives[0] if self._negatives else -1.0


def _candidates(
    directory: Path, questions: QuestionSet, block: int, config: PairsConfig, counts: PairingCounts
) -> Iterator[PreferencePair]:
    trajectories: dict[str, list[Trajectory]] = defaultdict(list)
    for name in ("attempts", "corrections"):
        for trajectory in read_part(part_path(directory / name, block), Trajectory):
            trajectories[trajectory.question_id].append(trajectory)
    for question in questions.block(block):
        yield from make_pairs(question, trajectories[question.id], config, counts)


def _with_draws(candidates: Iterable[PreferencePair]) -> Iterator[tuple[PreferencePair, float]]:
    """Each of a block's candidates with a number that its key alone decides."""
    for position, pair in enumerate(candidates):
        yield pair, uniform("pair", pair.iteration, pair.question_id, pair.source, position)


def _max_new_pairs(config: PairsConfig, earlier: list[Path]) -> float:
    """Pairs of this iteration, at most: all of `max_pairs` unless there are earlier pairs to mix in."""
    return config.max_pairs * (1 - config.previous_share) if any(map(count_rows, earlier)) else config.max_pairs


def _write_drawn(
    directory: Path, num_blocks: int, highest_draws: dict[PairSource, float], counts: PairingCounts
) -> Counter[PairSource]:
    """Writes the candidates that find room; returns how many, by source."""
    made: Counter[PairSource] = Counter()
    for block in range(num_blocks):
        candidates = read_part(part_path(directory / "candidates", block), PreferencePair)
        drawn = [pair for pair, draw in _with_draws(candidates) if draw <= highest_draws[pair.source]]
        write_part(directory / "pairs", block, drawn, PreferencePair)
        made.update(pair.source for pair in drawn)
    for source, num_candidates in counts.pairs.items():
        counts.drop(source, "over the share of its source", num_candidates - made[source])
    return made


def _earlier_pairs(earlier: list[Path], iteration: int, num_wanted: int) -> list[PreferencePair]:
    """Draws from the pairs that earlier iterations made themselves, `num_wanted` of them or all there are."""
    draws = (
        (uniform("earlier pair", iteration, number, position), number, position, pair)
        for number, directory in enumerate(earlier, 1)
        for position, pair in enumerate(iter_parts(directory, PreferencePair))
        if pair.iteration == number
    )
    return [pair for *_, pair in nsmallest(num_wanted, draws)]


def _right_line_by_line(game: Game, iteration: int, made: Counter[PairSource]) -> dict[str, float]:
    """By source, the share of chosen traces that are right in every step; nothing where nobody knows the steps."""
    num_right: Counter[PairSource] = Counter()
    if game.right_line_by_line is None:
        return {}
    for pair in iter_parts(game.run.iteration(iteration) / "pairs", PreferencePair):
        if pair.iteration == iteration and pair.source in ("correction", "own"):
            num_right[pair.source] += game.right_line_by_line(pair.question_id, pair.prefix + pair.chosen + pair.rest)
    return {source: num / made[source] for source, num in num_right.items()}
