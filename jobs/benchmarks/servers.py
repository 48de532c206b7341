"""Servers on this machine, in processes of their own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from medcritical_ray.errors import RunFailed, WaitTimeout

LOOK_S = 0.5
END_S = 60.0
TOLD_CHARS = 3000


@contextmanager
def running(
    words: Sequence[str | Path],
    connect: Callable[[], Any],
    log: Path,
    *,
    timeout_s: float,
    environment: Mapping[str, str] = os.environ,
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of a server once `connect`, whose connection is closed at once, raises no OSError any more; when the
    block ends, so does the process.

    Raises RunFailed or WaitTimeout, with the end of what it wrote to `log`, if it ends before or takes too long.
    """
    with log.open("w") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        _await(process, connect, log, timeout_s)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: "subprocess.Popen[bytes]", connect: Callable[[], Any], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RunFailed(f"the server ended: {_end_of(log)}")
        try:
            with closing(connect()):
                return
        except OSError:
            time.sleep(LOOK_S)
    raise WaitTimeout(
        f"the server did not answer in {timeout_s:g} s: free CPUs of this machine; its log: {_end_of(log)}"
    )


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-TOLD_CHARS:]
