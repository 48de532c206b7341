"""Where a cluster is joined, and where a server of one's own may listen. Ray, which takes long to
import, is not needed for it."""

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcritical_ray.config import ClusterConfig


def joined_address(config: "ClusterConfig") -> str | None:
    """That of the cluster which is joined; None if one is started."""
    return config.address or os.environ.get("RAY_ADDRESS")


def free_port(address: str = "127.0.0.1") -> int:
    """One that nobody listens on just now, on an address of this machine."""
    with socket.create_server((address, 0)) as free:
        port: int = free.getsockname()[1]
    return port
