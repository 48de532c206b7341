"""Where a run is, on the page of its job in Ray's dashboard, for a driver that `ray job submit` has started.

Ray has no public way to change the metadata of a job that runs. This writes them where its own job manager does.
"""

import json
import os

import ray
from ray._private.ray_constants import KV_NAMESPACE_JOB
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # it is compiled
from ray.dashboard.modules.job.common import JOB_ID_METADATA_KEY, JobInfoStorageClient

from medcritical_ray.telling.audience import Listener


def submission_id() -> str | None:
    """That of the submitted job which this process drives; None if it is none."""
    job_config = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}"))
    found: str | None = job_config.get("metadata", {}).get(JOB_ID_METADATA_KEY)
    return found


class JobPage(Listener):
    """Keeps run, iteration and phase in the job's metadata. Needs a Ray that is initialised."""

    def __init__(self, submission_id: str, run: str, timeout_s: float) -> None:
        self._key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=submission_id).encode()
        self._run = run
        self._timeout_s = timeout_s
        self._gcs = GcsClient(address=ray.get_runtime_context().gcs_address)

    def start_phase(self, iteration: int, phase: str) -> None:
        """Adds to the metadata that are there. Between reading and writing nobody else writes: Ray does so before the
        driver starts and after it has ended."""
        place = {"namespace": KV_NAMESPACE_JOB, "timeout": self._timeout_s}
        info = json.loads(self._gcs.internal_kv_get(self._key, **place))
        where = {"medcritical_run": self._run, "medcritical_iteration": str(iteration), "medcritical_phase": phase}
        info["metadata"] = {**(info.get("metadata") or {}), **where}
        self._gcs.internal_kv_put(self._key, json.dumps(info).encode(), True, **place)
