"""A Ray cluster of several nodes on this machine, each in processes of its own, to try what runs on many machines.

Its addresses are loopback ones, and nobody joins it without its token.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

import psutil

# Only a driver may ask the same in public, and drivers come and go here.
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.exceptions import RpcError

from medcritical_ray.addresses import free_port
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import RunFailed, WaitTimeout

_POLL_S = 0.2
_GCS_S = 10.0
_IS_UP = "--block"
"""What `ray start --block` says once its node is up."""


class LocalNode:
    """`ray start`, and all that descends from it."""

    def __init__(self, address: str, log: Path, words: list[str]) -> None:
        self._log = log
        self._node_id = ""
        own = ["--block", "--node-ip-address", address, "--dashboard-agent-listen-port", str(free_port())]
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *own, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started it
            )

    @property
    def is_up(self) -> bool:
        return _IS_UP in self._log.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        return shorten(self._log.read_text(errors="replace")[-1000:], width=400)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def node_id(self) -> str:
        """Ray's name for it; empty as long as it has none."""
        if not self._node_id:
            words = [word for process in self.processes() for word in words_of(process)]
            self._node_id = next((w.partition("=")[2] for w in words if w.startswith("--node_id=")), "")
        return self._node_id

    def processes(self) -> list[psutil.Process]:
        """Those that are left."""
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def send(self, number: int) -> None:
        """Sends a signal to all of it: what happens to a machine happens to all that runs there."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(number)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()


class LocalCluster:
    """A head, which has no CPUs for the work, and nodes that have. `tend` it to have nodes replaced that are lost."""

    def __init__(self, config: ClusterConfig, num_nodes: int, directory: Path) -> None:
        self._directory = directory
        self._num_started = 0
        self._memory = ["--object-store-memory", str(config.object_store_mib * 2**20)]
        port = free_port()
        self.address = f"{_address(0)}:{port}"
        self._words = ["--address", self.address, "--num-cpus", str(config.num_cpus or os.cpu_count()), *self._memory]
        head = ["--head", "--port", str(port), "--num-cpus", "0", "--temp-dir", str(directory / "ray"), *self._memory]
        more = ["--include-dashboard", "false", "--ray-client-server-port", str(free_port())]
        self._head = self._start(head + more)
        self._gcs: Any = None
        self._alive: list[str] = []
        self.nodes: list[LocalNode] = []
        try:
            self._await(lambda: self._head.is_up, config.connect_timeout_s)
            self._gcs = GcsClient(address=self.address)
            self.nodes = [self._start(self._words) for _ in range(num_nodes)]
            self._await(lambda: len(self.alive()) == num_nodes, config.connect_timeout_s)
        except BaseException:
            self.close()
            raise

    def alive(self) -> list[str]:
        """The nodes that Ray takes for alive, by its names for them, without the head; those of before, if it does not
        answer in time."""
        with suppress(RpcError):
            known = self._gcs.get_all_node_info(timeout=_GCS_S, state_filter=GcsNodeInfo.ALIVE)
            self._alive = [node.hex() for node, info in known.items() if not info.is_head_node]
        return self._alive

    def tend(self) -> None:
        """Starts a node in place of each that has ended, or that was up and that Ray has given up.

        Raises RunFailed if the head has ended.
        """
        if self._head.has_ended:
            raise RunFailed(f"the head of the Ray cluster ended: {self._head.last_words}")
        were_up = [node for node in self.nodes if node.is_up]
        alive = self.alive() if were_up else []
        for number, node in enumerate(self.nodes):
            if node.has_ended or (node in were_up and node.node_id not in alive):
                node.end()
                self.nodes[number] = self._start(self._words)

    def close(self) -> None:
        for node in [*self.nodes, self._head]:
            node.end()

    def _start(self, words: list[str]) -> LocalNode:
        self._num_started += 1
        log = self._directory / f"node-{self._num_started}.log"
        return LocalNode(_address(self._num_started - 1), log, words)

    def _await(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.tend()
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"no Ray cluster of {self._num_started} nodes could be started here in {timeout_s:g} s: free CPUs "
                    "and memory of this machine, or raise cluster.connect_timeout_s"
                )
            time.sleep(_POLL_S)


@contextmanager
def local_cluster(config: ClusterConfig, num_nodes: int) -> Iterator[LocalCluster]:
    """A cluster for as long as the block lasts; whatever this process starts meanwhile joins it.

    Needs `cluster_settings` in the environment since before Ray was imported, which reads them then and only then.
    Raises WaitTimeout if it is not there in `cluster.connect_timeout_s`, RunFailed if its head ends.
    """
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as directory:
        cluster = LocalCluster(config, num_nodes, Path(directory))
        os.environ["RAY_ADDRESS"] = cluster.address
        try:
            yield cluster
        finally:
            os.environ.pop("RAY_ADDRESS", None)
            cluster.close()


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing if it is gone."""
    with suppress(psutil.Error):
        words: list[str] = process.cmdline()
        return words
    return []


def _address(number: int) -> str:
    """A loopback address of its own; not 127.0.0.1, which Ray replaces by an address of the network."""
    return f"127.0.{number // 250}.{number % 250 + 2}"
