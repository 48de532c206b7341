"""A real S3 server on this machine (moto's, over HTTP), and what is in it."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import boto3

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port

PATIENCE_S = 60
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",  # else the client asks the network for a machine's role first
}


class ObjectStore:
    """The server at `address`, with one bucket."""

    bucket = "medcritical"

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        self._client.create_bucket(Bucket=self.bucket)

    def uri(self, path: str, bucket: str = bucket) -> str:
        return f"s3://{bucket}/{path}?endpoint_override={self.address}&region=us-east-1"

    def names(self, prefix: str) -> list[str]:
        """In alphabetical order, without the prefix and directories' own marks."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix + "/")
        keys = (entry["Key"] for page in pages for entry in page.get("Contents", []))
        return sorted(key.removeprefix(prefix + "/") for key in keys if not key.endswith("/"))

    def read(self, name: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def times(self, prefix: str) -> dict[str, float]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix + "/")
        return {
            entry["Key"].removeprefix(prefix + "/"): entry["LastModified"].timestamp()
            for page in pages
            for entry in page.get("Contents", [])
        }


@contextmanager
def s3_server() -> Iterator[ObjectStore]:
    """In a process of its own: vLLM looks into all that a process has imported, which some of Flask does not bear."""
    os.environ |= CREDENTIALS
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    connect = partial(socket.create_connection, ("127.0.0.1", port), timeout=1)
    with tempfile.NamedTemporaryFile() as log, running(words, connect, Path(log.name), timeout_s=PATIENCE_S):
        yield ObjectStore(f"http://127.0.0.1:{port}")
