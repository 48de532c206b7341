"""How far a run is: finished, in progress, failed or stopped, in which phase, and the command that goes on with it."""

import fcntl
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from medcritical_ray.config import Config
from medcritical_ray.engines.fleet import ENGINE_DIED, ENGINE_RETIRED
from medcritical_ray.errors import Stopped, UserError
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.iterations import decisions
from medcritical_ray.store.locations import is_uri, runs_root

State = Literal["finished", "in progress", "failed", "stopped"]

_FAILED, _STOPPED, _STAGE_ONE_ALONE = "run failed", "run stopped", "stage 1 alone"
_OF_ONE_RUN = ("medcritical demo", "medcritical self-play", "medcritical sft")
_BEGINS = ("run created", "run resumed")
_ENDS: dict[str, State] = {
    "phase failed": "failed",
    _FAILED: "failed",
    _STOPPED: "stopped",
    _STAGE_ONE_ALONE: "stopped",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """`iteration` and `phase` are the last that were done or that failed; `cause` is why a run ended early, where
    somebody could say; `holder` who works on it now; `command` goes on with it where it lies, from any directory, if
    one can; `moved_from` is where it lay when it was last worked on, if that is another place.

    `num_resumed` counts the processes after the first that got a phase done; `num_engine_deaths` and
    `num_engines_retired` are those of all processes. `time` is that of the last event: ISO 8601, in UTC.
    """

    state: State
    iteration: int = STAGE_ONE
    phase: str = ""
    cause: str = ""
    holder: str = ""
    command: str = ""
    moved_from: str = ""
    num_resumed: int = 0
    num_engine_deaths: int = 0
    num_engines_retired: int = 0
    time: str = ""


class _Event(BaseModel):
    """What is read of an event here."""

    time: str = ""
    event: str = ""
    iteration: int = STAGE_ONE
    phase: str = ""
    cause: str = ""
    command: str = ""
    directory: str = ""
    path: str = ""


def run_state(run: RunDirectory) -> RunState:
    """A run has finished or failed, is in progress while a process holds its lock, or else was ended from outside."""
    events = list(_events(run))
    begins = [number for number, each in enumerate(events) if each.event in _BEGINS] or [0]
    processes = [events[first:last] for first, last in zip(begins, [*begins[1:], len(events)], strict=True)]
    end = next((each for each in reversed(processes[-1]) if each.event in _ENDS), None)
    phase = next((each for each in reversed(events) if each.event in ("phase done", "phase failed")), _Event())
    holder = "" if end else _holder(run)
    last = next((each for each in reversed(events) if each.command), _Event())
    moved_from = _moved_from(run, last)
    state: State = _ENDS[end.event] if end else "in progress" if holder else "stopped"
    return RunState(
        state="finished" if run.summary_file.exists() else state,
        iteration=phase.iteration,
        phase=phase.phase,
        cause=end.cause if end else "",
        holder=holder,
        command=_from_anywhere(last, _command_here(run, last) if moved_from else last.command),
        moved_from=moved_from,
        num_resumed=sum(any(each.event == "phase done" for each in process) for process in processes[1:]),
        num_engine_deaths=sum(each.event == ENGINE_DIED for each in events),
        num_engines_retired=sum(each.event == ENGINE_RETIRED for each in events),
        time=events[-1].time if events else "",
    )


def note_end(run: RunDirectory, error: BaseException) -> None:
    """Has a run's events say why a process stopped working on it, where they do not yet."""
    with suppress(OSError):  # the disk may be what failed
        if not isinstance(error, Exception):
            run.append_event(_STOPPED, cause=_who_stopped(error))
        elif run_state(run).state != "failed":
            run.append_event(_FAILED, cause=repr(error))


def _who_stopped(error: BaseException) -> str:
    if isinstance(error, Stopped):
        return str(error)
    return "interrupted (Ctrl-C)" if isinstance(error, KeyboardInterrupt) else "its process was told to end"


def note_stage_one_alone(run: RunDirectory, command: str) -> None:
    """Has a run's events say that no more than stage 1 was asked for, and which command plays on."""
    run.append_event(_STAGE_ONE_ALONE, cause="as asked, after stage 1", **run.whence(command))


def adopted_version(run: RunDirectory) -> int:
    """That of the last finished iteration; before there is one, version 0 is the only one there may be."""
    version = 0
    for _, decision in decisions(run):
        version = decision.adopted_version
    return version


def _events(run: RunDirectory) -> Iterator[_Event]:
    """Those that can be read."""
    for event in run.events():
        with suppress(ValidationError):
            yield _Event.model_validate(event)


def _moved_from(run: RunDirectory, event: _Event) -> str:
    """Where the run lay at an event, if that is another place; every machine has its own for a store's working copy."""
    places = {event.path} if event.path else set()
    with suppress(UserError, KeyError, TypeError):
        of_run = run.record().config["run"]
        if is_uri(of_run["directory"]):
            places.add(str(runs_root(of_run["directory"]) / of_run["name"]))
    return "" if not event.path or realpath(run.path) in map(realpath, places) else event.path


def _command_here(run: RunDirectory, event: _Event) -> str:
    """The command that goes on with a run in another place than it did at the event; none if its directory has another
    name now, or belongs to a command that has more than one run."""
    if run.path.absolute().name != Path(event.path).name or not event.command.startswith(_OF_ONE_RUN):
        return ""
    return f"{event.command} --set {shlex.quote(f'run.directory={run.path.absolute().parent}')}"


def _from_anywhere(event: _Event, command: str) -> str:
    """A command of an event, preceded by the way to the directory that its paths start from."""
    directory = Path(event.directory)
    if not command or not event.directory or directory == Path.cwd() or not directory.is_dir():
        return command
    return f"cd {shlex.quote(event.directory)} && {command}"


def _holder(run: RunDirectory) -> str:
    """Who holds the run's lock; nothing if nobody does."""
    try:
        with run.lock_file.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except FileNotFoundError:
        pass
    return ""


def run_config(run: RunDirectory, remedy: str) -> Config:
    """The config in a run's record. Raises UserError, which ends with the remedy, if this version of the package does
    not take it."""
    try:
        return Config.model_validate(run.record().config)
    except ValidationError:
        raise UserError(f"the config in {run.path / 'run.json'} is of another version: {remedy}") from None
