"""A server that a job or a test starts: until when it is waited for, and that it is gone in the end."""

import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port
from medcritical_ray.errors import RunFailed, WaitTimeout

LISTENS = "import signal, socket, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
LISTENS += "with socket.create_server(('127.0.0.1', int(sys.argv[1]))) as server:\n    while True: server.accept()"


def test_a_server_that_would_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jobs.benchmarks.servers.END_S", 0.1)
    port = free_port()
    connect = partial(socket.create_connection, ("127.0.0.1", port), timeout=1)
    with running([sys.executable, "-c", LISTENS, str(port)], connect, tmp_path / "log", timeout_s=60) as process:
        assert process.poll() is None
    assert process.returncode == -9
    with pytest.raises(ConnectionRefusedError):
        connect()


def refused() -> None:
    raise ConnectionRefusedError


def test_a_server_that_ends_before_it_answers_is_told_with_its_last_words(tmp_path: Path):
    words = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(RunFailed, match="the server ended: no such model"):
        running(words, refused, tmp_path / "log", timeout_s=60).__enter__()


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_that(tmp_path: Path):
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(WaitTimeout, match=r"the server did not answer in 0\.1 s: free CPUs"):
        running(words, refused, tmp_path / "log", timeout_s=0.1).__enter__()
