"""Runs that go on from another run's stage 1: they share its questions, its student and its figures."""

import shutil
from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.files import atomic_directory, link_or_copy
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.record import record_of

_SHARED = ("data", "quarantine", "student", "policies")
"""What stays as it is once stage 1 is done, and may stand in several runs."""


def open_branch(config: Config, path: Path, trunk: RunDirectory, *, resume_command: str) -> RunDirectory:
    """The run at `path`, new or resumed, which begins with the stage 1 that `trunk` consists of.

    Up to there the config must be the trunk's. Files are shared with it where the file system can.
    """
    begin = RunDirectory.resume if RunDirectory(path).exists() else RunDirectory.create
    run = begin(path, record_of(config), resume_command=resume_command)
    if not run.is_finished(STAGE_ONE):
        _take_over(trunk, run)
    return run


def _take_over(trunk: RunDirectory, run: RunDirectory) -> None:
    """Stage 1's own directory takes its place last and at once: with it, stage 1 is done."""
    shared = [Path(name) for name in _SHARED if (trunk.path / name).exists()]
    for place in [*shared, trunk.iteration(STAGE_ONE).relative_to(trunk.path)]:
        if (run.path / place).exists():
            shutil.rmtree(run.path / place)  # what an earlier try has left
        with atomic_directory(run.path / place) as directory:
            shutil.copytree(trunk.path / place, directory, copy_function=link_or_copy, dirs_exist_ok=True)
