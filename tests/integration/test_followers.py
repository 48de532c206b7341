"""Who follows a run beside the terminal: the page of its job in Ray's dashboard, and Weights & Biases, offline."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import new_record

pytestmark = pytest.mark.integration

WITH_WANDB = """
import sys
from pathlib import Path
from medcritical_ray.config import RunConfig
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.telling.trackers import open_tracker

with open_tracker(RunConfig(name="small", tracker="wandb"), RunDirectory(Path(sys.argv[1]))) as listener:
    for step in (1.0, 2.0):
        listener.step(1, "train", {"step": step, "num_steps": 2.0, "loss": 1 / step})
    listener.finish_phase(1, "pair", 2.5, {"pairs": {"own": 5}, "seconds": 2.5})
"""


def test_the_page_of_a_job_tells_run_iteration_and_phase_and_keeps_what_it_told(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
):
    import ray
    from ray._raylet import GcsClient
    from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient, JobStatus

    from actors.job_page import JobPage, submission_id

    assert submission_id() is None
    # As the supervisor of a submitted job tells its driver.
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    job = submission_id()
    assert job == "raysubmit_1"
    jobs = JobInfoStorageClient(GcsClient(address=ray.get_runtime_context().gcs_address))
    entrypoint = "python -m jobs.self_play"
    put = JobInfo(status=JobStatus.RUNNING, entrypoint=entrypoint, metadata={"team": "cardiology"}, start_time=7)
    asyncio.run(jobs.put_info(job, put))
    page = JobPage(job, "demo", 30.0)
    page.start_phase(0, "teach")
    page.start_phase(2, "correct")
    kept = asyncio.run(jobs.get_info(job))
    assert kept is not None
    assert (kept.status, kept.entrypoint, kept.start_time) == (JobStatus.RUNNING, entrypoint, 7)
    assert kept.metadata == {
        "team": "cardiology",
        "medcritical_run": "demo",
        "medcritical_iteration": "2",
        "medcritical_phase": "correct",
    }


def test_weights_and_biases_keeps_the_curves_of_a_run_offline(tmp_path: Path):
    run = RunDirectory.create(tmp_path / "small", new_record({}), resume_command="")
    run.close()
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WITH_WANDB, run.path], env=environment, timeout=120, check=True)
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    points = list(logged(file))
    assert [(point["train_001/step"], point["train_001/training_loss"]) for point in points[:2]] == [(1, 1.0), (2, 0.5)]
    assert (points[2]["iteration"], points[2]["pair/pairs/own"]) == (1, 5)


def logged(file: Path) -> Iterator[dict[str, Any]]:
    """The points in a small file of wandb's: after 7 bytes, records of a checksum, a length, a kind and a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, start = file.read_bytes(), 7
    while start + 7 <= len(data):
        end = start + 7 + int.from_bytes(data[start + 4 : start + 6], "little")
        record = Record()
        record.ParseFromString(data[start + 7 : end])
        start = end
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
