"""The lock of a run: it tells who works on it, and whether anybody does."""

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from medcritical_ray.errors import UserError

LOCK = ".lock"
"""The file in the run's directory that is locked."""

_NUM_TRIES = 5
_PAUSE_S = 0.05


class RunLock:
    """An advisory lock on a file, which the kernel lets go of when its process ends (flock(2)).

    Raises UserError, naming the holder, if another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")
        if not self._is_taken():
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(f"{path.parent} is being worked on by {holder}: wait for it to end, or end it")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def _is_taken(self) -> bool:
        """Whoever looks whether somebody works on the run has the lock for a moment (run_state)."""
        for _ in range(_NUM_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(_PAUSE_S)
        return False

    def close(self) -> None:
        self._file.close()


def new_lock(path: Path) -> RunLock:
    """The lock of a run that need not be there yet. Raises UserError if its directory cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return RunLock(path / LOCK)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another run.directory") from None
