"""A real cluster of one machine, as an operator starts it: a head with a dashboard, its job server, and a token."""

import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port

TOKEN = "a-token-of-the-tests"
PATIENCE_S = 120


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
    address = f"http://127.0.0.1:{dashboard_port}"
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    log = directory.with_name(f"{directory.name}.log")

    def connect() -> Any:
        if "--block" not in log.read_text():  # said once the node is up, which may be after the dashboard
            raise ConnectionError("the node is not up yet")
        return urllib.request.urlopen(request, timeout=5)

    words = [bin_directory / "ray", "start", "--head", "--block", *(f"{k}={v}" for k, v in options.items())]
    with running(words, connect, log, timeout_s=PATIENCE_S, environment=inherited | settings | environment):
        yield address
