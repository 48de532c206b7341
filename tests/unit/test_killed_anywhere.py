"""A run that is killed before every single change of its files, as by SIGKILL: nothing is tidied up."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import SmallRun, small_config

from medcritical_ray.chaos.comparison import compare_runs
from medcritical_ray.files import write_json
from medcritical_ray.play import count_trajectories
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.self_play import self_play
from medcritical_ray.stage_one import stage_one
from medcritical_ray.summary import summarise

KILLED = 9
CHANGES = {"os.rename", "os.remove", "os.link", "os.rmdir"}
"""What makes a file appear or disappear at its place; whatever else is written has a hidden name until then."""
SIZES: dict[str, dict[str, Any]] = {
    "questions": {"num_train": 10, "num_dev": 4, "num_test": 4, "block_size": 3},
    "teacher": {"num_questions": 4},
    "generate": {"num_questions": 6},
    "evaluate": {"num_passes": 0},
}


def play(small: SmallRun) -> None:
    game = small.open()
    with game.run:
        policy = self_play(game, stage_one(game))
        write_json(game.run.summary_file, summarise(game, policy.version))


def play_until(small: SmallRun, number: int) -> int:
    """Plays in a process of its own, which is gone right before the change of that number, counted from 1; returns its
    exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    num_changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal num_changes
        if event in CHANGES and str(arguments[0]).startswith(str(small.path)):
            num_changes += 1
            if num_changes == number:
                os._exit(KILLED)

    try:
        sys.addaudithook(watch)
        play(small)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.timeout(900)
def test_a_run_killed_before_every_change_of_its_files_ends_as_if_it_had_not_been(tmp_path: Path):
    small, undisturbed = (SmallRun(tmp_path / name, small_config(**SIZES)) for name in ("killed", "undisturbed"))
    run = RunDirectory(small.path)
    num_kills, number, before = 0, 1, 0
    while (exit_code := play_until(small, number)) == KILLED:
        num_phases = sum(len(run.phases_done(iteration)) for iteration in (0, 1, 2))
        number = number + 1 if num_phases == before else 1  # one change further each time, until the phase is done
        num_kills, before = num_kills + 1, num_phases
    assert exit_code == 0
    assert num_kills > 100
    play(undisturbed)
    found = compare_runs(RunDirectory(undisturbed.path), run)
    assert (found.num_lost, found.num_doubled, found.num_changed, found.broken) == (0, 0, 0, ())
    assert [path for path in run.path.rglob("*") if ".tmp" in path.name] == []
    for phase, directory in (("generate", "attempts"), ("correct", "corrections")):
        counted = count_trajectories(run.iteration(1) / directory)
        assert counted.items() <= run.result(1, phase).items()
