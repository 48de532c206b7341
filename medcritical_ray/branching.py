"""Runs that go on from another run's stage 1: they share its questions, its student and its figures."""

import shutil
from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.files import link_or_copy
from medcritical_ray.run_directory import STAGE_ONE, RunDirectory


def open_branch(config: Config, path: Path, trunk: RunDirectory, *, resume_command: str) -> RunDirectory:
    """The run at `path`, new or resumed, which begins with the stage 1 that `trunk` consists of.

    Up to there the config must be the trunk's. Files are shared with it where the file system can.
    """
    record, seeds, prints = config.model_dump(mode="json"), {"run": config.run.seed}, trunk.record().fingerprints
    if RunDirectory(path).exists():
        run = RunDirectory.resume(path, config=record, seeds=seeds, fingerprints=prints)
    else:
        run = RunDirectory.create(path, config=record, seeds=seeds, fingerprints=prints, resume_command=resume_command)
    if not run.is_finished(STAGE_ONE):
        _take_over(trunk, run)
    return run


def _take_over(trunk: RunDirectory, run: RunDirectory) -> None:
    """Stage 1's own directory takes its place last and at once: with it, stage 1 is done."""
    stage_one = run.iteration(STAGE_ONE)
    others = [entry for entry in trunk.path.iterdir() if entry.is_dir() and entry.name != stage_one.parent.name]
    for directory in others:
        _link_tree(directory, run.path / directory.name)
    _link_tree(trunk.iteration(STAGE_ONE), run.path / "incoming")
    stage_one.parent.mkdir(exist_ok=True)
    (run.path / "incoming").rename(stage_one)


def _link_tree(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)  # what an earlier try has left
    shutil.copytree(source, target, copy_function=link_or_copy)
