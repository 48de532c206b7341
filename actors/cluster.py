"""The Ray cluster that a run uses: one that exists, or one started here for the run alone."""

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # it is compiled
from ray.exceptions import RayError

from actors.metrics import gauges_repeated
from medcritical_ray.addresses import joined_address
from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import Stopped, UserError, WaitTimeout
from medcritical_ray.planning.fit import ClusterResources
from medcritical_ray.planning.placement import Labels, Node

_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would package the working directory by itself
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",  # it has files; what a person is to see is told beside
}
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
_HOST_AND_PORT = re.compile(r"(?:ray://)?\[?(?P<host>[^/\]]+)\]?:(?P<port>\d+)")
_RETRY_S = 0.5
_SIGNALS: list[str] = []
"""Those that have told this process to end."""


@contextmanager
def connected(config: ClusterConfig, run_directory: Path, *, shows_output: bool = False) -> Iterator[ClusterResources]:
    """Connects to the configured cluster, or to that of the job this process is, or starts one; leaves it at the end.

    A Ray that this process has initialised already is used as it is, and left running. Of one that is started, a person
    sees what its processes write if `shows_output`. Yields what the cluster has,
    with the disk at the run's directory. Raises WaitTimeout if nothing answers in time, UserError if Ray cannot be
    reached there.
    """
    if ray.is_initialized():
        with gauges_repeated():
            yield _resources(run_directory, grows=config.autoscales)
        return
    os.environ.update(_ENVIRONMENT)
    with ExitStack() as stack:
        if address := joined_address(config):
            _join(address, config.connect_timeout_s)
        else:
            stack.enter_context(own_token())
            stack.enter_context(on_this_machine_alone())
            _start(config, shows_output=shows_output)
        stack.callback(ray.shutdown)
        with stopped_by_sigterm(), gauges_repeated():
            yield _resources(run_directory, grows=config.autoscales)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Has SIGTERM raise Stopped here, once: what is done to end in time is not to be ended by the next.

    Ray takes the signal for itself in `init`, so this comes after it. Only the main thread may ask for signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _SIGNALS.append("SIGTERM")
        raise Stopped("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped_or(error: BaseException) -> BaseException:
    """The error; or Stopped, if it is an interrupt that comes of SIGTERM: Ray's waits raise KeyboardInterrupt, whatever
    a handler has raised."""
    is_interrupt = isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped)
    return Stopped(_SIGNALS[-1]) if is_interrupt and _SIGNALS else error


@contextmanager
def own_token() -> Iterator[None]:
    """A token for the cluster that is started here, in a file that nobody else can read, gone with the cluster.

    Ray itself would make one for all clusters of this user, in a file of ~/.ray that others may read. Whoever has set
    another, or has switched tokens off, has their way.
    """
    if any(name.startswith("RAY_AUTH_") for name in os.environ):
        yield
        return
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="medcritical-token-") as directory:
        file = Path(directory) / "token"
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32), encoding="utf-8")
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)
        try:
            yield
        finally:
            for name in [name for name in os.environ if name.startswith("RAY_AUTH_") and name not in before]:
                del os.environ[name]
            AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def on_this_machine_alone() -> Iterator[None]:
    """Has Ray listen on the loopback interface, as it does on systems where it forms no clusters: it takes no address
    of that interface from anybody."""
    before, name = ray_constants.ENABLE_RAY_CLUSTER, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


def _start(config: ClusterConfig, *, shows_output: bool) -> None:
    memory, started = config.object_store_mib * 2**20, time.monotonic()
    options: dict[str, Any] = {"num_cpus": config.num_cpus, "object_store_memory": memory, "include_dashboard": False}
    try:
        ray.init(address="local", **options, **_QUIET | {"log_to_driver": shows_output})
    except Exception as error:
        if type(error) is not Exception:  # Ray raises a bare one where its node does not come up in time
            raise
        raise WaitTimeout(
            f"no Ray cluster could be started here in {time.monotonic() - started:.0f} s ({error}): free CPUs and "
            "memory of this machine; or, since Ray's own limit cannot be raised, start one with `ray start --head` "
            "and set cluster.address"
        ) from None


def _join(address: str, timeout_s: float) -> None:
    os.environ["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "1"  # else the Train page of the cluster's dashboard stays empty
    _await_answer(address, timeout_s)
    try:
        ray.init(address=address, **_QUIET)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:  # a RayError, if a token is missing or wrong
        raise UserError(f"no Ray cluster answers at {address} (cluster.address, RAY_ADDRESS): {error}") from None


def _await_answer(address: str, timeout_s: float) -> None:
    """Waits until somebody listens at the address, since Ray itself tries for many minutes and cannot be told not to.

    An address without host and port, such as "auto", is Ray's to resolve.
    """
    match = _HOST_AND_PORT.fullmatch(address)
    deadline = time.monotonic() + timeout_s
    while match:
        try:
            socket.create_connection((match["host"], int(match["port"])), timeout=timeout_s).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() + _RETRY_S > deadline:
                raise WaitTimeout(
                    f"no Ray cluster answers at {address} after {timeout_s:g} s ({error}): check cluster.address and "
                    "RAY_ADDRESS, or raise cluster.connect_timeout_s"
                ) from None
        time.sleep(_RETRY_S)


def _resources(run_directory: Path, *, grows: bool) -> ClusterResources:
    totals = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    existing = next(path for path in (run_directory, *run_directory.resolve().parents) if path.exists())
    return ClusterResources(
        num_cpus=totals.get("CPU", 0.0),
        num_gpus=totals.get("GPU", 0.0),
        memory_gib=totals.get("memory", 0.0) / 2**30,
        disk_gib=shutil.disk_usage(existing).free / 2**30,
        object_store_gib=min(node["Resources"].get("object_store_memory", 0.0) for node in nodes) / 2**30,
        gpu_memory_gib=_gpu_memory_gib(nodes) if totals.get("GPU") else None,
        grows=grows,
        nodes=tuple(node_of(node["Labels"], node["Resources"]) for node in nodes),
    )


def node_of(labels: Labels, there: Mapping[str, float]) -> Node:
    """A node with these labels and resources, as Ray calls them."""
    return Node(
        labels=labels,
        num_cpus=there.get("CPU", 0.0),
        num_gpus=there.get("GPU", 0.0),
        memory_gib=there.get("memory", 0.0) / 2**30,
    )


def _gpu_memory_gib(nodes: list[dict[str, Any]]) -> float | None:
    """The memory of the smallest GPU where this machine is the whole cluster: Ray does not tell that of others."""
    if [node["NodeID"] for node in nodes] != [ray.get_runtime_context().get_node_id()]:
        return None
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return min(sizes) / 2**30 if sizes else None
