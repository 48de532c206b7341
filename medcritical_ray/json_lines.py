"""Logs on disk: one JSON object a line, appended. A line that a crash tore is passed over, and spoils no other."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import to_json

from medcritical_ray.files import stored


def append_line(path: Path, value: Any) -> None:
    """Adds an object of plain values; NaN becomes null. Raises StorageFailed if the disk does not take it."""
    with stored(path), path.open("ab+") as file:
        if _ends_torn(file):
            file.write(b"\n")
        file.write(to_json(value, inf_nan_mode="null") + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects that can be read, oldest first; nothing if there is no file."""
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


def _ends_torn(file: BinaryIO) -> bool:
    """Whether a file, open for appending, ends in the middle of a line."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
