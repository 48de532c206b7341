"""What an inspection of a run has looked at, and what it found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medcritical_ray.errors import UserError
from medcritical_ray.files import sha256_of
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.files import PRUNED


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with one file or directory: words to follow its name."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


@dataclass(kw_only=True)
class Verification:
    """What is wrong with a run, and how much was compared: files by their hashes, rows of parquet parts by their keys,
    versions of policies, those of them that are pruned. `notes` say what could not be looked at, and why."""

    run: Path
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_files: int = 0
    num_rows: int = 0
    num_policies: int = 0
    num_pruned: int = 0


class Inspection:
    """One look at one run. A file with two names, as links have, is read once."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.found = Verification(run=run.path)
        self._hashes: dict[tuple[int, int], str] = {}

    def blame(self, file: Path, what: str) -> None:
        fault = Fault(file=file, what=what)
        if fault not in self.found.faults:
            self.found.faults.append(fault)

    @contextmanager
    def blaming(self, file: Path) -> Iterator[None]:
        """What the block cannot read is a fault of the file, told once."""
        try:
            yield
        except UserError as error:
            what = str(error).removeprefix(str(file))
            self.blame(file, f"cannot be read{what}" if what.startswith(":") else what.strip())
        except OSError as error:
            self.blame(file, f"cannot be read: {error.strerror or error}")

    def is_blamed(self, file: Path) -> bool:
        return any(fault.file == file for fault in self.found.faults)

    def compare(self, file: Path, recorded: str) -> None:
        """Blames a file that is missing, unless it was pruned, or that has another hash than was recorded."""
        self.found.num_files += 1
        try:
            status = file.stat()
            inode = status.st_dev, status.st_ino
            if inode not in self._hashes:
                self._hashes[inode] = sha256_of(file)
            if self._hashes[inode] != recorded:
                self.blame(file, "is damaged: its SHA-256 is not that which was recorded")
        except FileNotFoundError:
            if not (file.parent / PRUNED).exists():
                self.blame(file, "is missing")
        except OSError as error:
            self.blame(file, f"cannot be read: {error.strerror}")
