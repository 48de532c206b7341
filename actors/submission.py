"""A cluster's job server: what has to be right before a job goes there, sending it, and following it."""

import asyncio
import logging
import math
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE, get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from actors.cluster import node_of
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.planning.fit import ClusterResources

_ANSWER_S = 10
_NUM_NAMED = 3
_MIB = 2**20


def package_of(working_dir: Path) -> dict[str, int]:
    """Name -> bytes, of the files that Ray would send of a directory: all that .rayignore and .gitignore leave.

    Raises UserError, naming the largest entries, if that is more than a job server takes.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)  # each file of patterns is told otherwise, and again on sending
    root, files = working_dir.resolve(), {}
    if not root.is_dir():
        raise UserError(f"--working-dir {working_dir}: is no directory")

    def take(path: Path) -> None:
        if path.is_file():
            files[path.relative_to(root).as_posix()] = path.stat().st_size

    defaults = _get_excludes(root, get_runtime_env_default_excludes())
    _dir_travel(root, [defaults], take, include_gitignore=os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") != "1")
    num_bytes = sum(files.values())
    if num_bytes >= DASHBOARD_CLIENT_MAX_SIZE:
        raise UserError(
            f"--working-dir {working_dir}: {num_bytes / _MIB:.0f} MiB would be sent, and at most "
            f"{DASHBOARD_CLIENT_MAX_SIZE / _MIB:.0f} MiB can be; the largest: {_largest(files)}: list what the job "
            "does not need in .rayignore"
        )
    return files


def resources_of(nodes: Sequence[Any], *, grows: bool) -> ClusterResources:
    """What nodes, as Ray's state API has them, come to. The disk nobody tells from here: the job looks at its start."""
    known = tuple(node_of(node.labels, node.resources_total) for node in nodes)
    stores = [node.resources_total.get("object_store_memory", 0) / 2**30 for node in nodes]
    return ClusterResources(
        num_cpus=sum(node.num_cpus for node in known),
        num_gpus=sum(node.num_gpus for node in known),
        memory_gib=sum(node.memory_gib for node in known),
        disk_gib=math.inf,
        object_store_gib=min(stores, default=None),
        nodes=known,
        grows=grows,
    )


def _largest(files: dict[str, int]) -> str:
    entries: Counter[str] = Counter()
    for name, num_bytes in files.items():
        entries[name.partition("/")[0]] += num_bytes
    return ", ".join(f"{name} {num_bytes / _MIB:.0f} MiB" for name, num_bytes in entries.most_common(_NUM_NAMED))


class JobServer:
    """The job server at `address`. Raises UserError if nobody answers there, if it wants another token, or if its Ray
    is another version than this one."""

    def __init__(self, address: str) -> None:
        self.address = address
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's clients let the environment overrule their argument
        _check_answers(address)
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise UserError(
                f"the cluster at {address} wants a token ({str(error).splitlines()[0]}): set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN to the cluster's"
            ) from None
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray job server answers at {address}: {error}") from None
        version = self._client._server_ray_version
        if version != ray.__version__:
            raise UserError(
                f"the cluster at {address} runs Ray {version}, and this is Ray {ray.__version__}: install the same on "
                "both sides"
            )

    def resources(self, *, grows: bool) -> ClusterResources:
        """What the cluster has now; `grows` is for the config to say."""
        try:
            nodes = list_nodes(self.address, [("state", "=", "ALIVE")], limit=10_000, timeout=_ANSWER_S)
        except (RayStateApiException, OSError) as error:
            raise UserError(f"{self.address} does not tell what the cluster has: {error}") from None
        return resources_of(nodes, grows=grows)

    def submit(self, words: list[str], working_dir: Path, submission_id: str, metadata: dict[str, str]) -> None:
        """Sends the directory and has the command run in it. Raises UserError if the server refuses."""
        import shlex

        try:
            self._client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=submission_id,
                runtime_env={"working_dir": str(working_dir)},
                metadata=metadata,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.address} does not take the job: {str(error).strip().splitlines()[-1]}") from None

    def follow(self, submission_id: str) -> int:
        """Prints what the job prints until it ends; returns its exit code. Raises RunFailed if it did not start."""
        try:
            asyncio.run(self._print_log(submission_id))
            info: Any = self._client.get_job_info(submission_id)
        except KeyboardInterrupt:
            print(f"job {submission_id} goes on: `ray job stop --address {self.address} {submission_id}` ends it")
            raise
        except (RuntimeError, OSError) as error:
            raise RunFailed(
                f"{self.address} does not answer any more ({error}); job {submission_id} may go on"
            ) from None
        if info.driver_exit_code is not None:
            return code if (code := int(info.driver_exit_code)) >= 0 else 128 - code
        if info.status == JobStatus.STOPPED:
            return 143
        raise RunFailed(f"job {submission_id} is {info.status}: {(info.message or 'no reason given').strip()}")

    async def _print_log(self, submission_id: str) -> None:
        async for text in self._client.tail_job_logs(submission_id):
            print(text, end="", flush=True)


def _check_answers(address: str) -> None:
    """Ray's own client waits for as long as it takes."""
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=_ANSWER_S).close()
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise UserError(f"no Ray job server is at {address}: it answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(
            f"nobody answers at {address} within {_ANSWER_S} s ({getattr(error, 'reason', error)}): --address must be "
            "that of the cluster's dashboard, such as http://127.0.0.1:8265"
        ) from None
