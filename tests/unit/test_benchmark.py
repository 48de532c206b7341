"""What the benchmark makes of what it measured."""

import json
from pathlib import Path

import pytest

from jobs.benchmark import numbers_of, rows_kept_in
from jobs.benchmarks import MODULES
from jobs.benchmarks.figures import Figure, Goal, NotMeasured, in_turn, row_of
from medcritical_ray.errors import UserError

RATE = Goal(name="DPO", unit="pairs/s", peer="another", target=1.5)
SECONDS = Goal(name="update", unit="s", peer="restart", target=50, ratio="peer / ours")
MEMORY = Goal(name="memory", unit="MiB", target=2048, reach="at most")


def test_a_ratio_is_that_of_the_medians():
    figure = Figure(goal=RATE, ours_each=[30.0, 33.0, 90.0], peer_each=[20.0, 22.0, 1.0])
    assert (figure.ours, figure.peer, figure.ratio, figure.is_met) == (33.0, 20.0, 1.65, True)


def test_of_seconds_the_ratio_says_how_many_times_faster_ours_is():
    figure = Figure(goal=SECONDS, ours_each=[0.5], peer_each=[20.0])
    assert (figure.ratio, figure.is_met) == (40.0, False)


def test_without_a_peer_the_figure_itself_is_held_to_the_target():
    assert Figure(goal=MEMORY, ours_each=[700.0]).is_met
    assert not Figure(goal=MEMORY, ours_each=[2049.0]).is_met


def test_a_row_is_met_if_all_of_its_figures_are():
    good, bad = Figure(goal=MEMORY, ours_each=[1.0]), Figure(goal=MEMORY, ours_each=[3000.0])
    assert row_of(8, [good])["met"] is True
    row = row_of(8, [good, bad])
    assert (row["met"], row["met_itself"], row["also"][0]["met"]) == (False, True, False)


def test_a_row_that_is_not_measured_says_why_and_is_neither_met_nor_missed():
    row = row_of(3, [NotMeasured(goal=SECONDS, why="no GPU")])
    assert (row["ours"], row["ratio"], row["met"], row["why"]) == (None, None, None, "not measured: no GPU")


def test_measures_are_taken_in_turn_and_then_the_other_way_round():
    order: list[str] = []

    def measure(name: str, value: float) -> float:
        order.append(name)
        return value

    values = in_turn(3, lambda: measure("ours", 1.0), lambda: measure("peer", 2.0))
    assert "".join(name[0] for name in order) == "oppoop"
    assert values == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]


def test_rows_are_chosen_by_their_numbers():
    assert numbers_of("5,1,5") == [1, 5]
    assert numbers_of("") == list(MODULES)


def test_an_unknown_row_is_refused_by_name():
    with pytest.raises(UserError, match="77 is no row"):
        numbers_of("1,77")


def test_rows_of_an_earlier_call_are_read_back(tmp_path: Path):
    file = tmp_path / "benchmark.json"
    assert rows_kept_in(file) == {}
    file.write_text(json.dumps({"rows": [{"id": 6, "ratio": 1.0}]}))
    assert rows_kept_in(file) == {6: {"id": 6, "ratio": 1.0}}


def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path: Path):
    file = tmp_path / "notes.json"
    file.write_text("[]")
    with pytest.raises(UserError, match="holds no result of this command"):
        rows_kept_in(file)
