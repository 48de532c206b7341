"""Runs below a directory, each told in a row: how far it is, how good its policy is, or what is wrong with it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from medcritical_ray.errors import UserError
from medcritical_ray.files import checked, read_json
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.iterations import Rejected, decisions
from medcritical_ray.run.state import RunState, State, adopted_version, run_state
from medcritical_ray.statistics import with_interval

_SIGNS = ("run.json", "events.jsonl")
"""A directory that holds one of them is a run, damaged if it lacks the other."""


class Accuracy(BaseModel):
    """k of n test questions answered rightly, with its 95 % interval (Wilson)."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return with_interval(self.model_dump())


class _Test(BaseModel):
    accuracy: Accuracy


class _Evaluation(BaseModel):
    test: _Test


class _Run(BaseModel):
    num_iterations: int


class _Config(BaseModel):
    run: _Run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """One run. `progress` is how far it is, in as far as it can be read; `accuracy` that of policy `version`, the one
    that the last finished iteration adopted; `fault` what is wrong, of a damaged one."""

    path: Path
    state: State | Literal["damaged"]
    progress: RunState
    num_iterations: int = 0
    version: int | None = None
    accuracy: Accuracy | None = None
    fault: str = ""
    rejected: dict[int, Rejected] = field(default_factory=dict)
    """Iteration -> why its policy was rejected, of those that were."""


def runs_below(directory: Path) -> Iterator[Path]:
    """The directories of runs at or below a directory, by name; hidden ones, and those within runs, are passed over."""
    for place, names, files in os.walk(directory):
        if any(sign in [*names, *files] for sign in _SIGNS):
            names.clear()
            yield Path(place)
        names[:] = sorted(name for name in names if not name.startswith("."))


def run_row(path: Path) -> RunRow:
    """What a run's files say of it. What is wrong with a damaged one is told, never raised."""
    run, progress = RunDirectory(path), RunState(state="stopped")
    try:
        if not run.exists():
            raise UserError(f"{path} has no run.json")
        progress = run_state(run)
        config = checked(_Config, run.record().config, path / "run.json")
        if progress.state == "finished":
            read_json(run.summary_file)
        version = adopted_version(run)
        accuracy = _accuracy(run, version)
        rejected = {number: each.rejected for number, each in decisions(run) if each.rejected}
    except (UserError, OSError) as error:
        return RunRow(path=path, state="damaged", progress=progress, fault=" ".join(str(error).split()))
    return RunRow(
        path=path,
        state=progress.state,
        progress=progress,
        num_iterations=config.run.num_iterations,
        version=version if accuracy else None,
        accuracy=accuracy,
        rejected=rejected,
    )


def _accuracy(run: RunDirectory, version: int) -> Accuracy | None:
    """None before stage 1 has been evaluated. Raises UserError if what the evaluation left is damaged."""
    if not run.done(version, "evaluate"):
        return None
    where = run.iteration(version) / "phases" / "evaluate.json"
    return checked(_Evaluation, run.result(version, "evaluate"), where).test.accuracy
