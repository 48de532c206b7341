"""The Ray cluster that a run uses: one that exists, or one started here for the run alone."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from medcritical_ray.config import ClusterConfig
from medcritical_ray.errors import UserError
from medcritical_ray.plan import ClusterResources

_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would package the working directory by itself
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # else the dashboard's Train page stays empty
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def connected(config: ClusterConfig, run_directory: Path) -> Iterator[ClusterResources]:
    """Connects to the configured cluster, or to that of the job this process is, or starts one; leaves it at the end.

    Yields what the cluster has, with the disk at the run's directory. Raises UserError if it cannot be reached.
    """
    os.environ.update(_ENVIRONMENT)
    address = config.address or os.environ.get("RAY_ADDRESS")
    _init(address, config)
    try:
        yield _resources(run_directory)
    finally:
        ray.shutdown()


def _init(address: str | None, config: ClusterConfig) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        memory = config.object_store_mib * 2**20
        ray.init(
            address="local", num_cpus=config.num_cpus, object_store_memory=memory, include_dashboard=False, **quiet
        )
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray cluster answers at {address} (cluster.address, RAY_ADDRESS): {error}") from None


def _resources(run_directory: Path) -> ClusterResources:
    totals = ray.cluster_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    existing = next(path for path in (run_directory, *run_directory.resolve().parents) if path.exists())
    return ClusterResources(
        num_cpus=totals.get("CPU", 0.0),
        num_gpus=totals.get("GPU", 0.0),
        memory_gib=totals.get("memory", 0.0) / 2**30,
        disk_gib=shutil.disk_usage(existing).free / 2**30,
        object_store_gib=min(node.get("object_store_memory", 0.0) for node in nodes) / 2**30,
    )
