"""An iteration's pairs from the trajectories on disk: shares, limits, earlier pairs, and counts that add up."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import SmallRun, small_config

from medcritical_ray.game import Game
from medcritical_ray.iteration_pairs import pair_iteration
from medcritical_ray.records import PreferencePair, Question, Trajectory
from medcritical_ray.rollouts import Completion, attempt_turns, correction_turns
from medcritical_ray.run.tables import iter_parts, write_part

PAIRS = {"max_pairs": 100, "min_agreement": 1, "min_edit_distance_chars": 1, "max_pairs_per_question": 1}


def game_with(tmp_path: Path, **pairs: Any) -> Game:
    """Sixteen training questions in blocks of six, and no phase done yet."""
    return SmallRun(tmp_path, small_config(pairs=PAIRS | pairs)).open()


def write_iteration(game: Game, iteration: int) -> None:
    """Two attempts per question, the first wrong and the second right, and a right repair of the wrong one."""
    directory = game.run.iteration(iteration)
    for block in range(game.train.num_blocks):
        questions = game.train.block(block)
        attempts = [
            turn.trajectory(completion(answer(turn.question, right=turn.attempt_number == 1)), version=iteration)
            for turn in attempt_turns(questions, iteration=iteration, num_attempts=2)
        ]
        repairs = [
            turn.trajectory(
                completion(f"Check: the answer is wrong: no.\n{answer_line(turn.question)}"), version=iteration
            )
            for turn in correction_turns(questions, attempts, num_corrections=1, checked_share=0.0)
        ]
        write_part(directory / "attempts", block, attempts, Trajectory)
        write_part(directory / "corrections", block, repairs, Trajectory)


def completion(text: str) -> Completion:
    return Completion(text=text, finished=True, num_tokens=20)


def answer(question: Question, *, right: bool) -> str:
    return f"Thought: think.\nStep 1: {'so' if right else 'not so'}.\n{answer_line(question, right=right)}"


def answer_line(question: Question, *, right: bool = True) -> str:
    option = next(option for option in question.options if (option.letter == question.key) == right)
    return f"Answer: {option.text} ({option.letter})"


def pairs_of(game: Game, iteration: int) -> list[PreferencePair]:
    return list(iter_parts(game.run.iteration(iteration) / "pairs", PreferencePair))


def files_of(game: Game, iteration: int) -> dict[str, bytes]:
    directory = game.run.iteration(iteration)
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.parquet")}


def test_all_candidates_become_pairs_where_there_is_room(tmp_path: Path):
    game = game_with(tmp_path)
    write_iteration(game, 1)
    result = pair_iteration(game, 1, game.train)
    assert result["pairs"] == {"correction": 16, "own": 16}
    assert result["candidates"] == {"correction": 16, "own": 16}
    assert result["dropped"] == {}
    assert result["earlier_pairs"] == 0
    assert Counter(pair.source for pair in pairs_of(game, 1)) == {"correction": 16, "own": 16}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"correction": 0.5, "own": 0.5}, {"correction": 5, "own": 5}),
        ({"correction": 0.3, "own": 0.7}, {"correction": 3, "own": 7}),
        ({"correction": 1.0}, {"correction": 10}),
    ],
)
def test_each_source_has_exactly_its_share_of_the_most_pairs_there_may_be(
    tmp_path: Path, shares: dict[str, float], expected: dict[str, int]
):
    game = game_with(tmp_path, max_pairs=10, shares=shares)
    write_iteration(game, 1)
    assert pair_iteration(game, 1, game.train)["pairs"] == expected
    assert Counter(pair.source for pair in pairs_of(game, 1)) == expected


def test_a_source_short_of_its_share_is_not_filled_up_by_others(tmp_path: Path):
    game = game_with(tmp_path, max_pairs=20, shares={"correction": 0.9, "own": 0.1})
    write_iteration(game, 1)
    assert pair_iteration(game, 1, game.train)["pairs"] == {"correction": 16, "own": 2}


def test_candidates_are_the_pairs_and_those_over_the_share(tmp_path: Path):
    game = game_with(tmp_path, max_pairs=10, shares={"correction": 0.3, "own": 0.7})
    write_iteration(game, 1)
    result = pair_iteration(game, 1, game.train)
    assert result["dropped"] == {
        "correction: over the share of its source": 13,
        "own: over the share of its source": 9,
    }
    assert sum(result["candidates"].values()) == 32 == 10 + 13 + 9
    assert len(list(iter_parts(game.run.iteration(1) / "candidates", PreferencePair))) == 32


def test_what_is_drawn_is_spread_over_the_blocks(tmp_path: Path):
    game = game_with(tmp_path, max_pairs=12, shares={"correction": 1.0})
    write_iteration(game, 1)
    pair_iteration(game, 1, game.train)
    drawn = {pair.question_id for pair in pairs_of(game, 1)}
    assert all(drawn & {question.id for question in game.train.block(block)} for block in range(3))


def test_earlier_pairs_make_up_their_share(tmp_path: Path):
    game = game_with(tmp_path, max_pairs=20, shares={"own": 1.0}, previous_share=0.25)
    for iteration in (1, 2, 3):
        write_iteration(game, iteration)
    first = pair_iteration(game, 1, game.train)
    game.run.mark_done(1, "pair", first)
    second = pair_iteration(game, 2, game.train)
    game.run.mark_done(2, "pair", second)
    assert first["earlier_pairs"] == 0
    assert (second["pairs"], second["earlier_pairs"]) == ({"own": 15}, 5)
    assert Counter(pair.iteration for pair in pairs_of(game, 2)) == {2: 15, 1: 5}
    third = pair_iteration(game, 3, game.train)
    assert (third["pairs"], third["earlier_pairs"]) == ({"own": 15}, 5)
    mixed_in = [pair for pair in pairs_of(game, 3) if pair.iteration < 3]
    assert len({(pair.iteration, pair.question_id) for pair in mixed_in}) == 5
    assert len(pairs_of(game, 3)) == 20


def test_without_a_previous_share_no_earlier_pair_is_mixed_in(tmp_path: Path):
    game = game_with(tmp_path)
    for iteration in (1, 2):
        write_iteration(game, iteration)
        pair_iteration(game, iteration, game.train)
    assert {pair.iteration for pair in pairs_of(game, 2)} == {2}


def test_pairing_again_gives_identical_files(tmp_path: Path):
    game = game_with(tmp_path, max_pairs=12, previous_share=0.25)
    for iteration in (1, 2):
        write_iteration(game, iteration)
    game.run.mark_done(1, "pair", pair_iteration(game, 1, game.train))
    result, files = pair_iteration(game, 2, game.train), files_of(game, 2)
    assert len(pairs_of(game, 2)) > 8
    assert pair_iteration(game, 2, game.train) == result
    assert files_of(game, 2) == files


def test_what_luck_explains_is_a_share_of_the_attempts_whose_repairs_agree(tmp_path: Path):
    # One repair of each of 16 wrong attempts, with four other options to guess from: 16 * 1/4 of 16 agree by luck.
    game = game_with(tmp_path)
    write_iteration(game, 1)
    assert pair_iteration(game, 1, game.train)["correction_share_explained_by_guessing"] == pytest.approx(0.25)


def test_an_iteration_without_wrong_attempts_has_no_pairs_and_nothing_to_explain(tmp_path: Path):
    game = game_with(tmp_path)
    for block in range(game.train.num_blocks):
        for name in ("attempts", "corrections"):
            write_part(game.run.iteration(1) / name, block, [], Trajectory)
    assert pair_iteration(game, 1, game.train) == {
        "pairs": {},
        "earlier_pairs": 0,
        "candidates": {},
        "dropped": {},
        "correction_share_explained_by_guessing": None,
        "chosen_right_line_by_line": {},
    }


def test_the_share_that_is_right_line_by_line_is_told_by_source_and_only_where_somebody_knows(tmp_path: Path):
    game = game_with(tmp_path)
    write_iteration(game, 1)
    knowing = dataclasses.replace(game, right_line_by_line=lambda question_id, trace: "Step 1: so." in trace)
    assert pair_iteration(knowing, 1, game.train)["chosen_right_line_by_line"] == {"correction": 0.0, "own": 1.0}
    ignorant = dataclasses.replace(game, right_line_by_line=None)
    assert pair_iteration(ignorant, 1, game.train)["chosen_right_line_by_line"] == {}
