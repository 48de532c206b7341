"""A run on disk: what it is, which phases are done, what happened, and who works on it now.

runs/<name>/
  run.json                        see run_record.py
  policies/v0000/ …               see policies.py
  iterations/001/attempts/ …      parquet parts, see tables.py
  iterations/001/phases/pair.json one file per phase that is done, with its result
  iterations/001/steps/train.jsonl  one JSON object per training step
  iterations/001/metrics.json     DONE is written after it, last
  events.jsonl                    one JSON object per line
  .lock                           held while a process works on the run
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import ValidationError
from pydantic_core import to_json

from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.files import read_json, write_json
from medcritical_ray.run_record import RunRecord, check_resumable, new_record

STAGE_ONE = 0
"""The number under which stage 1 stands among the iterations."""

_RUN_JSON = "run.json"
_LOCK = ".lock"
_DONE = "DONE"


class Keeper(Protocol):
    """Who keeps a run in another place, too."""

    def push(self) -> None: ...


class RunDirectory:
    """A run's directory. `RunDirectory(path)` reads; to work on a run, `create` or `resume` it, which locks it.

    The lock ends with `close`, with the `with` block, or with the process, however that ends. A keeper is told to keep
    up whenever a phase is done, and at the end.
    """

    def __init__(self, path: Path, lock: "RunLock | None" = None, keeper: Keeper | None = None) -> None:
        self.path = path
        self._lock = lock
        self._keeper = keeper

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config: dict[str, Any],
        seeds: dict[str, int],
        fingerprints: dict[str, str],
        resume_command: str,
        keeper: Keeper | None = None,
    ) -> Self:
        """Starts a new run. Raises UserError if there is one at `path` already, or if `path` holds anything else."""
        if cls(path).exists():
            raise UserError(f"{path} holds a run already: resume it with `{resume_command}` or choose another run.name")
        if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
            raise UserError(f"{path} exists and is no run: move it away or choose another run.name")
        run = cls(path, new_lock(path), keeper)
        write_json(path / _RUN_JSON, new_record(config, seeds, fingerprints))
        run.append_event("run created", command=resume_command, directory=str(Path.cwd()))
        run.keep()
        return run

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        config: dict[str, Any],
        seeds: dict[str, int],
        fingerprints: dict[str, str],
        resume_command: str,
        keeper: Keeper | None = None,
    ) -> Self:
        """Goes on with a run. Raises UserError as `check_resume` does."""
        now, changes = cls.check_resume(path, config=config, seeds=seeds, fingerprints=fingerprints)
        run = cls(path, RunLock(path / _LOCK), keeper)
        run.append_event(
            "run resumed",
            changes=changes,
            code_version=now.code_version,
            packages=now.packages,
            command=resume_command,
            directory=str(Path.cwd()),
        )
        run.keep()
        return run

    @classmethod
    def check_resume(
        cls, path: Path, *, config: dict[str, Any], seeds: dict[str, int], fingerprints: dict[str, str]
    ) -> tuple[RunRecord, list[str]]:
        """The record that a run would have now, and what of its config changes, without a word in its events.

        Raises UserError if there is no run at `path`, if its config or data were others, or if somebody works on it.
        """
        now = new_record(config, seeds, fingerprints)
        changes = check_resumable(cls(path).record(), now)
        RunLock(path / _LOCK).close()
        return now, changes

    def exists(self) -> bool:
        return (self.path / _RUN_JSON).exists()

    def record(self) -> RunRecord:
        """What run.json says. Raises UserError if there is no run here or if run.json is damaged."""
        file = self.path / _RUN_JSON
        if not self.exists():
            raise UserError(f"there is no run in {self.path}: nothing to resume")
        try:
            return RunRecord.model_validate(read_json(file))
        except ValidationError as error:
            raise UserError(f"{file} is not the record of a run ({error.error_count()} fields are wrong)") from None

    @property
    def summary_file(self) -> Path:
        """Written last of all: a run that has it is finished."""
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def lock_file(self) -> Path:
        """Locked while a process works on the run; see RunLock."""
        return self.path / _LOCK

    @property
    def policies(self) -> Path:
        return self.path / "policies"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine"

    def iteration(self, iteration: int) -> Path:
        """The directory of one self-iteration, or of STAGE_ONE."""
        return self.path / "iterations" / f"{iteration:03d}"

    def done(self, iteration: int, phase: str) -> bool:
        return self._phase_file(iteration, phase).exists()

    def phases_done(self, iteration: int) -> list[str]:
        """Their names, in the alphabet's order."""
        return sorted(path.stem for path in (self.iteration(iteration) / "phases").glob("*.json"))

    def mark_done(self, iteration: int, phase: str, result: dict[str, Any]) -> None:
        """Records that a phase, all of whose files are written, is done, and what a resumed run must know of it."""
        write_json(self._phase_file(iteration, phase), result)
        self.append_event("phase done", iteration=iteration, phase=phase)
        self.keep()

    def result(self, iteration: int, phase: str) -> dict[str, Any]:
        """What `mark_done` was given. Raises UserError if the phase is not done."""
        return read_json(self._phase_file(iteration, phase))

    def finish_iteration(self, iteration: int, metrics: dict[str, Any]) -> None:
        write_json(self.iteration(iteration) / "metrics.json", metrics)
        write_json(self.iteration(iteration) / _DONE, {"iteration": iteration})
        self.append_event("iteration done", iteration=iteration)
        self.keep()

    def is_finished(self, iteration: int) -> bool:
        return (self.iteration(iteration) / _DONE).exists()

    def metrics(self, iteration: int) -> dict[str, Any]:
        """What `finish_iteration` was given. Raises UserError if there are none yet."""
        return read_json(self.iteration(iteration) / "metrics.json")

    def append_step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        """Adds the metrics of one training step, as one line."""
        with self._steps_file(iteration, phase).open("a", encoding="utf-8") as file:
            file.write(to_json(metrics, inf_nan_mode="null").decode() + "\n")

    def steps(self, iteration: int, phase: str) -> list[dict[str, float]]:
        """The training steps of a phase so far; none if it has not begun. A line that a crash tore is skipped."""
        return list(_json_lines(self._steps_file(iteration, phase)))

    def forget_steps(self, iteration: int, phase: str) -> None:
        """A training that starts anew leaves none of its earlier steps."""
        file = self._steps_file(iteration, phase)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)

    def append_event(self, event: str, **fields: Any) -> None:
        """Adds one line to events.jsonl: the time in UTC, the event, and fields of plain values."""
        entry = {"time": datetime.now(UTC), "event": event, **fields}
        with self._events_file().open("ab+") as file:
            if _ends_torn(file):
                file.write(b"\n")
            file.write(to_json(entry, inf_nan_mode="null") + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """The events so far, oldest first. A line that a crash tore is skipped."""
        yield from _json_lines(self._events_file())

    def keep(self) -> None:
        """Has the keeper, if there is one, keep all that is there now. Raises what it raises."""
        if self._keeper:
            self._keeper.push()

    def close(self) -> None:
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with suppress(MedCriticalError) if error else nullcontext():  # what ended the run is told
                self.keep()
        finally:
            self.close()

    def _phase_file(self, iteration: int, phase: str) -> Path:
        return self.iteration(iteration) / "phases" / f"{phase}.json"

    def _steps_file(self, iteration: int, phase: str) -> Path:
        return self.iteration(iteration) / "steps" / f"{phase}.jsonl"

    def _events_file(self) -> Path:
        return self.path / "events.jsonl"


class RunLock:
    """An advisory lock on a file, which the kernel lets go of when its process ends (flock(2)).

    Raises UserError, naming the holder, if another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(f"{path.parent} is being worked on by {holder}: wait for it to end, or end it") from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def new_lock(path: Path) -> RunLock:
    """The lock of a run that need not be there yet. Raises UserError if its directory cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return RunLock(path / _LOCK)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another run.directory") from None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """One object per line; nothing if there is no file."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _ends_torn(file: Any) -> bool:
    """Whether a file, open in binary mode for appending, ends in the middle of a line."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
