"""Files and directories that are whole or not there: written beside their place, flushed to the disk, renamed."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from medcritical_ray.errors import StorageFailed, UserError

Model = TypeVar("Model", bound=BaseModel)

_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""No space, no quota, too large, read-only, broken: whichever file was to be written, it is not."""


@contextmanager
def stored(path: Path) -> Iterator[None]:
    """The block writes `path`: what the disk refuses it becomes StorageFailed, which names the path."""
    try:
        yield
    except OSError as error:
        refusal = _refusal_in(error)
        if refusal is None:
            raise
        raise StorageFailed(f"{path} cannot be written: {refusal}") from error


def _refusal_in(error: OSError) -> str | None:
    """The disk's own words; None if it is not the disk that refuses. `shutil` keeps several errors as texts in one."""
    texts = str(error) if isinstance(error, shutil.Error) else ""
    faults = (number for number in _DISK_FAULTS if number == error.errno or os.strerror(number) in texts)
    return next(map(os.strerror, faults), None)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A hidden path to write to: it takes the place of `path` when the block ends, and is gone if the block fails.

    Raises StorageFailed if the disk does not take it.
    """
    temporary = _hidden_beside(path)
    with stored(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush_to_disk(temporary)
            temporary.replace(path)
            flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A hidden directory to fill: it takes the place of `path`, where there may be an empty directory, when the block
    ends, and is gone if the block fails. Raises StorageFailed if the disk does not take it."""
    temporary = _hidden_beside(path)
    with stored(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            put_in_place(temporary, path)
        except StorageFailed as error:  # of a file in it, by the name that it would have had
            raise StorageFailed(str(error).replace(str(temporary), str(path))) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _hidden_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def put_in_place(directory: Path, path: Path) -> None:
    """Has a directory take the place of `path`, where there may be an empty one, with all that is in it on the disk."""
    for entry in [*directory.rglob("*"), directory]:
        flush_to_disk(entry)
    directory.replace(path)
    flush_to_disk(path.parent)


def remove_leftovers(root: Path) -> None:
    """Removes what is in the making below a directory: nobody who writes there may be alive."""
    for leftover in list(root.rglob(".*.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)  # it may have been in another one


def flush_to_disk(path: Path) -> None:
    """Makes a file's content, or a directory's entries, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Has a file, which must stay as it is, stand in a second place: linked where the file system can, else copied."""
    try:
        os.link(source, target)
    except OSError:
        with stored(Path(target)):
            shutil.copy2(source, target)


def check_writable(path: Path, what: str) -> None:
    """Raises UserError, beginning with `what`, unless a file can be written at `path`; leaves nothing behind."""
    if refusal := why_unwritable(path):
        raise UserError(f"{what} {path}: {refusal}")


def why_unwritable(path: Path) -> str | None:
    """Why no file can be written at `path`, whose directories may be missing; None if one can. Leaves nothing
    behind."""
    parents = path.absolute().parents
    existing = next(parent for parent in parents if os.path.exists(parent))  # noqa: PTH110 (no error of a hidden one)
    try:
        TemporaryFile(dir=existing).close()
    except OSError as error:
        return f"cannot be written below {existing}: {error.strerror}"
    return None


def write_json(path: Path, value: Any) -> None:
    """Writes a value of plain types, dataclasses or pydantic models, whole or not at all; NaN becomes null."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_json(value, indent=2, inf_nan_mode="null") + b"\n")


def parse_json(text: str | bytes, **how: Any) -> Any:
    """The value of a JSON text. Raises ValueError if it is none, or is nested too deeply to be any that is meant."""
    try:
        return json.loads(text, **how)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError if the file is missing, unreadable or damaged."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None


def checked(model: type[Model], value: Any, path: Path) -> Model:
    """What was read from a file, as a model of what is needed of it. Raises UserError if that is not there."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{path} is damaged: {f'{where}: ' if where else ''}{error.errors()[0]['msg']}") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
