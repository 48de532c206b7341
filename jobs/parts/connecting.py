"""A cluster for a job. Importing Ray and starting it take many seconds each, so a person is told before."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import note

if TYPE_CHECKING:
    from medcritical_ray.config import ClusterConfig
    from medcritical_ray.planning.fit import ClusterResources


@contextmanager
def connected(config: "ClusterConfig", directory: Path, *, shows_output: bool = False) -> "Iterator[ClusterResources]":
    """See actors.cluster.connected."""
    has_ray = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    from medcritical_ray.addresses import joined_address

    address = joined_address(config)
    if not has_ray:
        note(f"joining the Ray cluster at {address}" if address else "starting Ray")
    from actors.cluster import connected as connected_to

    with connected_to(config, directory, shows_output=shows_output) as resources:
        yield resources
