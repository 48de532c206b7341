"""What the phases of a run leave on disk, with hashes: noted when a phase is done, compared before another reads it,
and by `medcritical runs verify`."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from medcritical_ray.files import sha256_of

FILES = "files"
"""The key of a marker (phases/*.json, DONE) under which it has the hashes."""

DONE = "DONE"
METRICS = "metrics.json"
PHASES = "phases"

PRUNED = "PRUNED"
"""A directory with this file has had its other files removed, by rule; see pruning.py."""

Hashes = dict[str, str]
"""Path below the run's directory, with slashes -> SHA-256 of the file, as hexadecimal digits."""


def hashes_of(run: Path, files: Iterable[Path], but: Collection[str] = ()) -> Hashes:
    """The hashes of files below a run's directory, without those that are named in `but`."""
    names = {file.relative_to(run).as_posix(): file for file in files}
    return {name: sha256_of(file) for name, file in sorted(names.items()) if name not in but}


def files_below(place: Path) -> Iterator[Path]:
    """A file itself, or the files of a directory, without hidden ones, which are locks or in the making."""
    if place.is_file():
        yield place
    for path in sorted(place.rglob("*")) if place.is_dir() else ():
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts):
            yield path


def left_in(iteration: Path) -> Iterator[Path]:
    """What the phases of an iteration have left in its directory: all but the markers."""
    for path in files_below(iteration):
        first, *rest = path.relative_to(iteration).parts
        if not (first == PHASES if rest else first in (METRICS, DONE)):
            yield path


def markers_in(iteration: Path) -> list[Path]:
    """Those that DONE speaks of: the phases' markers and the metrics."""
    return [*sorted((iteration / PHASES).glob("*.json")), iteration / METRICS]


def fault_of(file: Path, recorded: str) -> str | None:
    """What is wrong with a file, given its hash when it was written: words to follow its name. None if nothing is."""
    try:
        return None if sha256_of(file) == recorded else "is damaged: its SHA-256 is not that which was recorded"
    except FileNotFoundError:
        return None if (file.parent / PRUNED).exists() else "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
