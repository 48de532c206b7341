"""What can go wrong, by whose fault it is. Every error carries one message and nothing else, so that it pickles."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class MedCriticalError(Exception):
    """The root of every error that this project raises on purpose."""


class UserError(MedCriticalError, ValueError):
    """Something that the user can mend: a bad value, a missing file, a plan that does not fit. Exit code 2."""


class RunFailed(MedCriticalError, RuntimeError):
    """A failure inside a run; the message names the phase, the cause and what resumes the run. Exit code 1."""


class WaitTimeout(MedCriticalError, TimeoutError):
    """A wait that ended; the message says for whom, for how long, and which config key to raise. Exit code 1."""


class StorageFailed(MedCriticalError, OSError):
    """The disk, or what stands for one, refused a file; the message names the file and the cause. Exit code 1."""


class Diverged(RunFailed):
    """A training whose loss or gradient is no finite number any more."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the process to end (SIGTERM). Like Ctrl-C it is no error, so nothing that handles errors takes it
    for one. Exit code 143."""


@contextmanager
def told_by_key(key: str) -> Iterator[None]:
    """Has a UserError begin with the key of the config that is at fault."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


class Problems:
    """UserErrors that are told together: a block under it ends early with one, and what comes next begins anyway."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, UserError):
            self.told.append(str(error))
        return isinstance(error, UserError)

    def refuse(self) -> None:
        """Raises one UserError with all that was kept, if anything was."""
        if self.told:
            raise UserError("; ".join(self.told))
