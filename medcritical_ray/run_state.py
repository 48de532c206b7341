"""How far a run is: finished, in progress, failed or stopped, and in which phase."""

import fcntl
from dataclasses import dataclass
from typing import Any, Literal

from medcritical_ray.run_directory import STAGE_ONE, RunDirectory

State = Literal["finished", "in progress", "failed", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """`iteration` and `phase` are the last that were done or that failed; `cause` is why, of a run that failed."""

    state: State
    iteration: int = STAGE_ONE
    phase: str = ""
    cause: str = ""


def run_state(run: RunDirectory) -> RunState:
    """A run has finished or failed, is in progress while a process holds its lock, or else was ended from outside."""
    last: dict[str, Any] = {}
    for event in run.events():
        if event.get("event") in ("phase done", "phase failed", "run resumed"):
            last = event
    where = {"iteration": last.get("iteration", STAGE_ONE), "phase": last.get("phase", "")}
    if run.summary_file.exists():
        return RunState(state="finished", **where)
    if last.get("event") == "phase failed":
        return RunState(state="failed", cause=last.get("cause", ""), **where)
    if _is_locked(run):
        return RunState(state="in progress", **where)
    return RunState(state="stopped", **where)


def adopted_version(run: RunDirectory) -> int:
    """That of the last finished iteration; before there is one, version 0 is the only one there may be."""
    version, iteration = 0, STAGE_ONE
    while run.is_finished(iteration):
        version, iteration = int(run.metrics(iteration)["adopted_version"]), iteration + 1
    return version


def _is_locked(run: RunDirectory) -> bool:
    try:
        with run.lock_file.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
