"""A real cluster of one machine, as an operator starts it: a head with a dashboard, its job server, and a token."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOKEN = "a-token-of-the-tests"
PATIENCE_S = 120


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def head_node(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of the dashboard. `directory` must have a short name: sockets are below it."""
    port, dashboard_port = free_port(), free_port()
    bin_directory = Path(sys.executable).parent
    options = {
        "--node-ip-address": "127.0.0.1",
        "--port": port,
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": dashboard_port,
        "--dashboard-agent-listen-port": free_port(),
        "--dashboard-agent-grpc-port": free_port(),
        "--metrics-export-port": free_port(),
        "--runtime-env-agent-port": free_port(),
        "--ray-client-server-port": free_port(),
        "--num-cpus": 4,
        "--object-store-memory": 200 * 2**20,
        "--temp-dir": directory,
    }
    settings = {
        "PATH": f"{bin_directory}:{os.environ['PATH']}",  # a job's `python` is looked up on the cluster's PATH
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    log = directory.with_name(f"{directory.name}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [bin_directory / "ray", "start", "--head", "--block", *(f"{k}={v}" for k, v in options.items())],
            env=inherited | settings | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{dashboard_port}"
    try:
        _await(process, address, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _await(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(request, timeout=5).close()
            if "--block" in log.read_text():  # said once the node is up, which may be after the dashboard
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"no dashboard in {PATIENCE_S} s: {log.read_text()[-3000:]}")
