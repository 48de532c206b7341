"""A run as large as wanted, of the real records and by the real phases, for the time and the size of its report:

python tests/large_run.py DIR 100000     # makes the run, unless it is there, and times its report
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from fakes import SmallRun, small_config

from jobs.self_play import play_to_the_end
from medcritical_ray.records import Trajectory
from medcritical_ray.report import write_report
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.tables import count_rows, part_paths, read_part, write_part

PER_QUESTION = 24
"""Trajectories that a question of each of the two iterations comes to: attempts, their repairs and checks."""


def large_run(root: Path, num_trajectories: int, num_chars: int = 0) -> RunDirectory:
    """A finished run of two iterations with at least as many attempts and corrections; `num_chars` are appended to
    each text, as of a model that writes at length."""
    num_questions = num_trajectories // PER_QUESTION
    config = small_config(
        run={"name": "large"},
        questions={"num_train": 2 * num_questions + 6, "num_dev": 500, "num_test": 1000, "block_size": 150},
        generate={"num_questions": num_questions, "num_attempts": 4},
    )
    game = SmallRun(root, config).open()
    with game.run as run:
        play_to_the_end(game)
    if num_chars:
        _lengthen(run, num_chars)
    return RunDirectory(run.path)


def num_trajectories_of(run: RunDirectory) -> int:
    return sum(count_rows(run.iteration(number) / name) for number in (1, 2) for name in ("attempts", "corrections"))


def _lengthen(run: RunDirectory, num_chars: int) -> None:
    for number, name in ((number, name) for number in (1, 2) for name in ("attempts", "corrections")):
        directory = run.iteration(number) / name
        for index, path in enumerate(part_paths(directory)):
            rows = read_part(path, Trajectory)
            write_part(directory, index, [replace(row, trace=row.trace + "x" * num_chars) for row in rows], Trajectory)


if __name__ == "__main__":
    root, wanted = Path(sys.argv[1]), int(sys.argv[2])
    made = RunDirectory(root / "large")
    os.fsync = lambda descriptor: None  # thousands of small files, which nobody will miss
    if not made.summary_file.exists():
        large_run(root, wanted)
    before, computed = time.monotonic(), time.process_time()
    write_report(made, made.report_file)
    took_s, computed_s = time.monotonic() - before, time.process_time() - computed
    size = f"{made.report_file.stat().st_size / 1e6:.2f} MB"
    print(f"{num_trajectories_of(made):,} trajectories: {took_s:.1f} s ({computed_s:.1f} s of computing), {size}")
