"""A directory in an object store, as pyarrow opens it by its URI: S3, Google Cloud Storage, Azure.

Credentials come from where the store's own client looks for them: environment, profile, role of the machine.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from medcritical_ray.errors import StorageFailed, UserError, WaitTimeout
from medcritical_ray.files import atomic_path
from medcritical_ray.names import stays_within

Result = TypeVar("Result")

_NUM_AT_ONCE = 8
_PAUSE_S = 5.0


class Remote:
    """Uploads and downloads files by their names below `uri`.

    A store that does not answer, or refuses, is asked again for `patience_s` seconds, beyond what its client does by
    itself: that of S3 gives up one that is silent after a hundred. Then WaitTimeout is raised, which names the URI;
    without patience, UserError. What the disk here refuses is StorageFailed, at once.
    """

    def __init__(self, uri: str, *, patience_s: float = 0.0) -> None:
        self.uri = uri
        self.patience_s = patience_s

    def filesystem(self) -> tuple[Any, str]:
        """pyarrow's file system, and the path in it."""
        return self._opened

    def check(self) -> None:
        """Raises what is wrong with the address. Files that are not there say nothing of whether there is a bucket."""
        filesystem, root = self._opened

        def work() -> None:
            with suppress(FileNotFoundError):  # a bucket that has nothing there yet
                filesystem.get_file_info(FileSelector(root))

        self._patiently(work)

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if there is none."""
        filesystem, root = self._opened

        def work() -> bytes | None:
            try:
                with filesystem.open_input_stream(f"{root}/{name}") as file:
                    content: bytes = file.read()
                    return content
            except FileNotFoundError:
                return None

        return self._patiently(work)

    def write(self, name: str, content: bytes) -> None:
        filesystem, root = self._opened

        def work() -> None:
            with filesystem.open_output_stream(f"{root}/{name}") as file:
                file.write(content)

        self._patiently(work)

    def files(self, directory: str = "") -> dict[str, tuple[int, float]]:
        """Name -> size and time, of all files below a directory but hidden ones. Raises UserError, too, if one has a
        name that would lie elsewhere once it is copied."""
        filesystem, root = self._opened
        selector = FileSelector(f"{root}/{directory}".rstrip("/"), recursive=True, allow_not_found=True)
        found = self._patiently(lambda: filesystem.get_file_info(selector))
        files = {info.path.removeprefix(f"{root}/"): info for info in found if info.type == FileType.File}
        if strange := [name for name in files if not stays_within(name)]:
            raise UserError(f"{self.uri} holds {strange[0]!r}, which is no file of a run: remove it there")
        return {name: (info.size, info.mtime.timestamp()) for name, info in files.items() if not is_hidden(name)}

    def upload(self, names: Iterable[str], root: Path) -> None:
        """Copies files below the local `root` here. Each is there whole or not at all: pyarrow's own copying cannot be
        interrupted by a signal, which would have a store take what came so far."""
        filesystem, path = self._opened

        def work(name: str) -> None:
            copy_files(
                str(root / name),
                f"{path}/{name}",
                source_filesystem=LocalFileSystem(),
                destination_filesystem=filesystem,
            )

        self._each(work, names)

    def download(self, names: Iterable[str], root: Path) -> None:
        """Copies files from here to below the local `root`; each is there whole or not at all."""
        filesystem, path = self._opened

        def work(name: str) -> None:
            with atomic_path(root / name) as temporary:
                copy_files(
                    f"{path}/{name}",
                    str(temporary),
                    source_filesystem=filesystem,
                    destination_filesystem=LocalFileSystem(),
                )

        self._each(work, names)

    def delete(self, name: str) -> None:
        """Removes a file that may be gone already."""
        filesystem, root = self._opened

        def work() -> None:
            with suppress(FileNotFoundError):
                filesystem.delete_file(f"{root}/{name}")

        self._patiently(work)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return self._patiently(lambda: FileSystem.from_uri(self.uri))

    def _each(self, work: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
            list(pool.map(lambda name: self._patiently(lambda: work(name)), names))

    def _patiently(self, work: Callable[[], Result]) -> Result:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return work()
            except StorageFailed:  # the disk here, not the store
                raise
            except (OSError, pa.ArrowException) as error:
                if time.monotonic() + _PAUSE_S > deadline:
                    raise self._given_up(error) from None
            time.sleep(_PAUSE_S)

    def _given_up(self, error: Exception) -> Exception:
        cause = str(error).splitlines()[0]
        if not self.patience_s:
            return UserError(f"{self.uri} cannot be used: {cause}: check address, bucket and credentials")
        return WaitTimeout(
            f"{self.uri} could not be used for {self.patience_s:g} s: {cause}: see to the store, or raise "
            "run.store_timeout_s"
        )


def is_hidden(name: str) -> bool:
    """Whether a file, by its path below a run, is a lock or in the making, and no part of the run."""
    return any(part.startswith(".") for part in name.split("/"))
