"""A run in an object store. One machine works on a local copy, and has the store keep up with it.

The store is the run; a working copy is worth what it has of it. `driver.json` in the store names the process that works
on the run. The copy whose driver that was may be ahead of the store, and stays; any other is behind, and is replaced. A
process that finds another's name there stops, so that two machines cannot work on one run for longer than a moment.

What says that something is done (phases/*.json, COMPLETE, DONE, summary.json, events) is uploaded after all that it
speaks of, in the order in which it was written. Nothing in the store is ever deleted but what the run has pruned, after
the file that says so has been uploaded.
"""

import os
import shutil
import socket
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic_core import from_json, to_json

from medcritical_ray.config import Config
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.files import read_json, write_json
from medcritical_ray.run.files import PRUNED
from medcritical_ray.run.policies import MANIFEST
from medcritical_ray.store.locations import is_uri, join_uri, runs_root
from medcritical_ray.store.remote import Remote, is_hidden

RUN_JSON = "run.json"
_DRIVER = "driver.json"
_STATE = ".mirror.json"
_MARKS = {"COMPLETE", "DONE", "metrics.json", RUN_JSON, "summary.json", "events.jsonl"}

Stamp = tuple[int, int]
"""Size in bytes, and time in nanoseconds: files are never changed but by adding to them, or replaced."""


class Mirror:
    """The run at `uri`, with its working copy at `root`."""

    def __init__(self, root: Path, uri: str, patience_s: float) -> None:
        self.root = root
        self.uri = uri
        self.remote = Remote(uri, patience_s=patience_s)
        self._driver = uuid4().hex
        self._is_claimed = False
        self._pushed: dict[str, Stamp] = {}
        self._pulled: dict[str, tuple[int, float]] = {}

    def settle(self, *, resume: bool, resume_command: str) -> None:
        """Brings the working copy up to the store. Raises UserError if the store cannot be used, or if there is a run
        that is not to be resumed."""
        Remote(self.uri).check()
        is_there, is_here = self.remote.read(RUN_JSON) is not None, (self.root / RUN_JSON).exists()
        if is_there and not resume:
            raise UserError(
                f"{self.uri} holds a run already: resume it with `{resume_command}` or choose another run.name"
            )
        if is_here and not is_there and not resume:
            raise UserError(
                f"{self.root} is the working copy of a run that is not at {self.uri}: put it there with "
                f"`{resume_command}`, or remove it to start anew"
            )
        if resume and not is_here and not is_there:
            raise UserError(f"there is no run at {self.uri}: nothing to resume")
        if is_there and not self.is_driven_here():
            _empty(self.root)
        if is_there:
            self._pull()

    def take_over(self) -> None:
        """Puts this process's name at the run that it settled, and brings the working copy up to what another has
        uploaded since: whoever resumes may have waited for machines, while the run's driver still lived."""
        is_ours = self.is_driven_here()
        self._claim()
        if not is_ours:
            self._pull()

    def push(self) -> None:
        """Uploads what is new. Raises WaitTimeout if the store cannot be used for `run.store_timeout_s`, RunFailed if
        another process has taken the run over."""
        self._claim()
        found = {name: _stamp(self.root / name) for name in _files(self.root)}
        new = [name for name, stamp in found.items() if self._pushed.get(name) != stamp]
        marks = sorted(filter(_is_mark, new), key=lambda name: found[name][1])
        self.remote.upload([name for name in new if not _is_mark(name)], self.root)
        for mark in marks:
            self.remote.upload([mark], self.root)
        self._pushed |= {name: found[name] for name in new}
        for name in [name for name in self._pushed if name not in found and _is_pruned(name, found)]:
            self.remote.delete(name)
            del self._pushed[name]
        self._keep_state()

    def name_of(self, directory: Path) -> str | None:
        """The name in the store of a directory of the working copy; None if it is none."""
        root, directory = self.root.resolve(), directory.resolve()
        return directory.relative_to(root).as_posix() if directory.is_relative_to(root) else None

    def is_driven_here(self) -> bool:
        """Whether the working copy on this machine is the one that was worked on last."""
        here, there = self._state(), self.remote.read(_DRIVER)
        return there is not None and here.get("driver") == from_json(there)["driver"]

    def _pull(self) -> None:
        self._pushed = {name: (size, time) for name, (size, time) in self._state().get("pushed", {}).items()}
        there = self.remote.files()
        wanted = [name for name in there if name != _DRIVER and not _is_pruned(name, there)]
        replaced = {name for name, stamp in self._pulled.items() if there.get(name) != stamp}
        stale = [name for name in wanted if name in replaced or not (self.root / name).exists()]
        self.remote.download(stale, self.root)
        self._pushed |= {name: _stamp(self.root / name) for name in stale}
        self._pulled = there

    def _claim(self) -> None:
        """Puts this process's name at the run; later, looks whether it still stands there."""
        if not self._is_claimed:
            who = {"driver": self._driver, "process": os.getpid(), "host": socket.gethostname()}
            Remote(self.uri).write(_DRIVER, to_json({**who, "since": datetime.now(UTC)}))
            self._is_claimed = True
            self._keep_state()
            return
        now = from_json(self.remote.read(_DRIVER) or b"{}")
        if now.get("driver") != self._driver:
            by = f"process {now.get('process')} on {now.get('host')} since {now.get('since')}"
            raise RunFailed(f"{self.uri} is worked on by {by}: this process leaves it alone")

    def _state(self) -> dict[str, Any]:
        path = self.root / _STATE
        state: dict[str, Any] = read_json(path) if path.exists() else {}
        return state

    def _keep_state(self) -> None:
        write_json(self.root / _STATE, {"driver": self._driver, "pushed": self._pushed})


def mirror_of(config: Config) -> Mirror | None:
    """The mirror of a run whose directory is named by a URI."""
    if not is_uri(config.run.directory):
        return None
    root = runs_root(config.run.directory) / config.run.name
    return Mirror(root, join_uri(config.run.directory, config.run.name), config.run.store_timeout_s)


def fetch(uri: str, out: Path) -> int:
    """Copies what lies below a URI, a run or a policy of one, to a directory; returns the number of files."""
    remote = Remote(uri)
    names = list(remote.files())
    remote.download(names, out)
    return len(names)


def _files(root: Path) -> Iterator[str]:
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return (name for name in names if not is_hidden(name))


def _is_pruned(name: str, names: Collection[str]) -> bool:
    """Whether a file is of those that a directory, one of whose files says so, has given up."""
    directory, _, file = name.rpartition("/")
    return file not in (MANIFEST, PRUNED) and f"{directory}/{PRUNED}" in names


def _is_mark(name: str) -> bool:
    *_, directory, file = ["", *name.split("/")]
    return file in _MARKS or directory == "phases"


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _empty(root: Path) -> None:
    for entry in list(root.iterdir()):
        if entry.name == ".lock":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
