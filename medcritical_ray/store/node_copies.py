"""Policies on the machines where engines and training workers run: seen on a shared file system, or fetched once."""

import fcntl
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json, write_json
from medcritical_ray.run.policies import MANIFEST, check_not_pruned, read_manifest, verify_policy
from medcritical_ray.store.mirror import Mirror


def bring(directory: Path, mirror: Mirror | None) -> None:
    """Sees to it that a directory of a model or an adapter, and the model below that, is on this machine, at its path.

    Of a run in an object store, it is fetched unless this machine's copy is the one that is worked on, or was fetched
    before and has not been replaced since. What is fetched and has a manifest is verified by it. Raises UserError if
    the directory is neither here nor in the store, or is damaged.
    """
    name = mirror.name_of(directory) if mirror else None
    if mirror and name and not mirror.is_driven_here():
        _fetch(directory, name, mirror)
    elif not directory.is_dir():
        raise UserError(
            f"{directory} is not on {socket.gethostname()}: run.directory and student.path must be on a file system "
            "that all nodes share, or run.directory a URI of an object store"
        )
    if base := _base_of(directory):
        bring(base, mirror)


def bring_whole(directory: Path, mirror: Mirror | None) -> None:
    """As `bring`, and compares every file with the manifests, since nobody who trains on from weights would notice a
    flipped byte. Raises UserError, naming the file that is damaged."""
    bring(directory, mirror)
    for place in (directory, _base_of(directory)):
        if place and (place / MANIFEST).exists():
            verify_policy(place)


def _base_of(directory: Path) -> Path | None:
    """The model below a published adapter. Raises UserError if what is published was pruned."""
    check_not_pruned(directory)
    base = read_manifest(directory).base if (directory / MANIFEST).exists() else None
    return (directory.parent / base).resolve() if base else None


def _fetch(directory: Path, name: str, mirror: Mirror) -> None:
    stamp = directory.with_name(f".{directory.name}.fetched.json")
    with _alone(directory):
        there = {file: list(stamps) for file, stamps in mirror.remote.files(name).items()}
        if not there:
            raise UserError(f"{mirror.uri} has no {name}")
        if stamp.exists() and directory.is_dir() and read_json(stamp) == there:
            return
        shutil.rmtree(directory, ignore_errors=True)
        mirror.remote.download(there, mirror.root)
        if MANIFEST in {file.rpartition("/")[2] for file in there}:
            verify_policy(directory)
        write_json(stamp, there)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process of this machine at a time; the lock goes with its process."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{directory.parent} cannot be written on {socket.gethostname()} ({error.strerror}): set XDG_CACHE_HOME "
            "to a directory that every node has"
        ) from None
    with directory.with_name(f".{directory.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
