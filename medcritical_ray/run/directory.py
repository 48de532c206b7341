"""A run on disk: what it is, which phases are done, what happened, and who works on it now.

runs/<name>/
  run.json                        see record.py
  policies/v0000/ …               see policies.py
  iterations/001/attempts/ …      parquet parts, see tables.py
  iterations/001/phases/pair.json one file per phase that is done, with its result and the hashes of what it left
  iterations/001/steps/train.jsonl  one JSON object per training step
  iterations/001/metrics.json     DONE, with the hashes of these and of the phases' files, is written after it, last
  summary.json                    written last of all
  events.jsonl                    one JSON object per line, with the hash of the marker, record or summary it speaks of
  .lock                           held while a process works on the run
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import BaseModel, ValidationError

from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.files import checked, read_json, remove_leftovers, sha256_of, write_json
from medcritical_ray.json_lines import append_line, read_lines
from medcritical_ray.run.files import (
    DONE,
    FILES,
    METRICS,
    PHASES,
    Hashes,
    fault_of,
    files_below,
    hashes_of,
    left_in,
    markers_in,
)
from medcritical_ray.run.lock import LOCK, RunLock, new_lock
from medcritical_ray.run.record import RunRecord, check_resumable

STAGE_ONE = 0
"""The number under which stage 1 stands among the iterations."""


class Keeper(Protocol):
    """Who keeps a run in another place, too."""

    def push(self) -> None: ...


class RunDirectory:
    """A run's directory. `RunDirectory(path)` reads; to work on a run, `create` or `resume` it, which locks it.

    The lock ends with `close`, with the `with` block, or with the process, however that ends. A keeper is told to keep
    up whenever a phase is done, and at the end.
    """

    def __init__(self, path: Path, lock: RunLock | None = None, keeper: Keeper | None = None) -> None:
        self.path = path
        self._lock = lock
        self._keeper = keeper

    @classmethod
    def create(
        cls,
        path: Path,
        record: RunRecord,
        *,
        resume_command: str,
        keeper: Keeper | None = None,
    ) -> Self:
        """Starts a new run. Raises UserError if there is one at `path` already, or if `path` holds anything else."""
        cls.check_new(path, resume_command)
        run = cls(path, new_lock(path), keeper)
        write_json(run.record_file, record)
        run._note("run created", run.record_file, **run.whence(resume_command))
        run.keep()
        return run

    @classmethod
    def check_new(cls, path: Path, resume_command: str) -> None:
        """Raises UserError if a run cannot be started at `path`: there is one already, which somebody may work on, or
        anything else."""
        if cls(path).exists():
            new_lock(path).close()
            raise UserError(f"{path} holds a run already: resume it with `{resume_command}` or choose another run.name")
        if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
            raise UserError(f"{path} exists and is no run: move it away or choose another run.name")

    @classmethod
    def resume(
        cls,
        path: Path,
        record: RunRecord,
        *,
        resume_command: str,
        keeper: Keeper | None = None,
    ) -> Self:
        """Goes on with a run, whose record would be this one now. Raises UserError as `check_resume` does."""
        changes = cls.check_resume(path, record)
        run = cls(path, new_lock(path), keeper)
        remove_leftovers(path)
        run.append_event(
            "run resumed",
            changes=changes,
            code_version=record.code_version,
            packages=record.packages,
            **run.whence(resume_command),
        )
        run.keep()
        return run

    @classmethod
    def check_resume(cls, path: Path, record: RunRecord) -> list[str]:
        """What of a run's config changes if its record is this one now, without a word in its events.

        Raises UserError if there is no run at `path`, if its config or data were others, or if somebody works on it.
        """
        changes = check_resumable(cls(path).record(), record)
        new_lock(path).close()
        return changes

    def whence(self, command: str) -> dict[str, str]:
        """What an event says of the command that goes on with the run: where it is typed, and where the run lies."""
        return {"command": command, "directory": str(Path.cwd()), "path": str(self.path.absolute())}

    def exists(self) -> bool:
        return self.record_file.exists()

    def record(self) -> RunRecord:
        """What run.json says. Raises UserError if there is no run here or if run.json is damaged."""
        file = self.record_file
        if not self.exists():
            raise UserError(f"there is no run in {self.path}: nothing to resume")
        try:
            return RunRecord.model_validate(read_json(file))
        except ValidationError as error:
            raise UserError(f"{file} is not the record of a run ({error.error_count()} fields are wrong)") from None

    @property
    def record_file(self) -> Path:
        """A directory that has it is a run."""
        return self.path / "run.json"

    @property
    def summary_file(self) -> Path:
        """Written last of all: a run that has it is finished."""
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def lock_file(self) -> Path:
        """Locked while a process works on the run; see RunLock."""
        return self.path / LOCK

    @property
    def policies(self) -> Path:
        return self.path / "policies"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine"

    def iteration(self, iteration: int) -> Path:
        """The directory of one self-iteration, or of STAGE_ONE."""
        return self.path / "iterations" / f"{iteration:03d}"

    def phase_file(self, iteration: int, phase: str) -> Path:
        """A phase's marker."""
        return self.iteration(iteration) / PHASES / f"{phase}.json"

    def done_file(self, iteration: int) -> Path:
        """An iteration's marker."""
        return self.iteration(iteration) / DONE

    def done(self, iteration: int, phase: str) -> bool:
        return self.phase_file(iteration, phase).exists()

    def phases_done(self, iteration: int) -> list[str]:
        """Their names, in the alphabet's order."""
        return sorted(path.stem for path in (self.iteration(iteration) / PHASES).glob("*.json"))

    def mark_done(
        self,
        iteration: int,
        phase: str,
        result: dict[str, Any],
        *,
        beside: Iterable[Path] = (),
        ahead: Iterable[Path] = (),
    ) -> None:
        """Records that a phase, all of whose files are written, is done, what a resumed run must know of it, and the
        hashes of what it left: files of the iteration that no phase before it has left and no later one has written
        `ahead`, and those `beside` these."""
        others = [other for other in self.phases_done(iteration) if other != phase]
        known = {name for other in others for name in self.left(iteration, other)}
        known |= {file.relative_to(self.path).as_posix() for place in ahead for file in files_below(place)}
        files = [*left_in(self.iteration(iteration)), *(file for place in beside for file in files_below(place))]
        write_json(self.phase_file(iteration, phase), {**result, FILES: hashes_of(self.path, files, but=known)})
        self._note("phase done", self.phase_file(iteration, phase), iteration=iteration, phase=phase)
        self.keep()

    def result(self, iteration: int, phase: str) -> dict[str, Any]:
        """What `mark_done` was given. Raises UserError if the phase is not done, or its marker is damaged."""
        marker = _read_object(self.phase_file(iteration, phase))
        return {key: value for key, value in marker.items() if key != FILES}

    def left(self, iteration: int, phase: str) -> Hashes:
        """The hashes of what a phase left, as they were when it was done. Raises UserError as `result` does."""
        return _hashes_in(self.phase_file(iteration, phase))

    def check_left(self, iteration: int, phase: str) -> None:
        """Raises UserError, which names the first file that a phase left and that is missing or damaged now."""
        for name, recorded in self.left(iteration, phase).items():
            if fault := fault_of(self.path / name, recorded):
                marker = self.phase_file(iteration, phase)
                raise UserError(
                    f"{self.path / name} {fault}: restore it; or remove it and {marker}: then resuming writes it again"
                )

    def finish_iteration(self, iteration: int, metrics: dict[str, Any]) -> None:
        directory = self.iteration(iteration)
        write_json(directory / METRICS, metrics)
        marked = hashes_of(self.path, markers_in(directory))
        write_json(self.done_file(iteration), {"iteration": iteration, FILES: marked})
        if rejected := metrics.get("rejected"):
            self.append_event("policy rejected", iteration=iteration, **rejected)
        self._note("iteration done", self.done_file(iteration), iteration=iteration)
        self.keep()

    def is_finished(self, iteration: int) -> bool:
        return self.done_file(iteration).exists()

    def markers(self, iteration: int) -> Hashes:
        """The hashes of an iteration's markers when it was finished. Raises UserError if it is not, or DONE damaged."""
        return _hashes_in(self.done_file(iteration))

    def metrics(self, iteration: int) -> dict[str, Any]:
        """What `finish_iteration` was given. Raises UserError if there are none yet."""
        return _read_object(self.iteration(iteration) / METRICS)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary: the run has come to its end."""
        write_json(self.summary_file, summary)
        self._note("run finished", self.summary_file)
        self.keep()

    def append_step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        """Adds the metrics of one training step, as one line."""
        append_line(self._steps_file(iteration, phase), metrics)

    def steps(self, iteration: int, phase: str) -> list[dict[str, float]]:
        """The training steps of a phase so far; none if it has not begun. A line that a crash tore is skipped."""
        return list(read_lines(self._steps_file(iteration, phase)))

    def forget_steps(self, iteration: int, phase: str) -> None:
        """A training that starts anew leaves none of its earlier steps."""
        file = self._steps_file(iteration, phase)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)

    def append_event(self, event: str, **fields: Any) -> None:
        """Adds one line to events.jsonl: the time in UTC, the event, and fields of plain values."""
        append_line(self.events_file, {"time": datetime.now(UTC), "event": event, **fields})

    def events(self) -> Iterator[dict[str, Any]]:
        """The events so far, oldest first. A line that a crash tore is skipped."""
        yield from read_lines(self.events_file)

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

    def _note(self, event: str, file: Path, **fields: Any) -> None:
        """An event that speaks of a file has the file's hash."""
        self.append_event(event, **fields, sha256=sha256_of(file))

    def _steps_file(self, iteration: int, phase: str) -> Path:
        return self.iteration(iteration) / "steps" / f"{phase}.jsonl"


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if there is none."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no object")
    return value


def _hashes_in(marker: Path) -> Hashes:
    return checked(_Marker, _read_object(marker), marker).files


class _Marker(BaseModel):
    """What is read of a marker here; those of earlier versions have no hashes."""

    files: Hashes = {}
