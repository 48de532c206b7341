"""Secrets in every way in which a user gives one, and a job on a cluster: nothing that is left or shown holds any."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import openai
import psutil
import pyarrow.parquet as pq
import pytest
from endpoint_server import KEY, Handler, servers
from head import TOKEN, head_node
from object_store import ObjectStore
from tiny_run import CONFIG, PATIENCE_S, REPOSITORY, SETTINGS

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port
from medcritical_ray.corrections import format_keep
from medcritical_ray.store.mirror import fetch

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

STORE_KEY, SERVE_KEY = "secret-of-the-object-store", "key-of-those-who-may-ask"
SECRETS = {
    "the teacher's key": KEY,
    "the cluster's token": TOKEN,
    "the store's": STORE_KEY,
    "that of clients": SERVE_KEY,
}
PAGES = [
    *("/api/jobs/", "/api/serve/applications/", "/nodes?view=details", "/logical/actors", "/api/cluster_status"),
    *("/api/v0/actors?detail=1", "/api/v0/workers?detail=1", "/api/v0/tasks?detail=1", "/api/v0/runtime_envs?detail=1"),
    *("/api/v0/placement_groups?detail=1", "/api/v0/jobs?detail=1", "/api/train/v2/runs/v1", "/api/data/datasets/"),
]
"""What the dashboard shows, as it asks for it."""


def quotes_the_key(handler: Handler, num_asked: int) -> None:
    """As servers do, in an error of the first request; later answers are of no use."""
    if num_asked == 1:
        handler.reply(400, {"error": {"message": f"Not with the key {KEY}, nor with {KEY[:9]}***"}})
    else:
        handler.answer(format_keep())


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """Those of all processes that were there, of this test's own, within the block."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def texts_in(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, links aside; that of parquet as it is read."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            rows = str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" and content else b""
            yield str(path.relative_to(directory)), path.read_bytes() + rows


def page(address: str, path: str) -> bytes:
    request = urllib.request.Request(f"{address}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
            return content
    except urllib.error.HTTPError as error:
        return error.read()


def ask_with_a_right_key_and_a_wrong_one(port: int) -> None:
    for key in (SERVE_KEY, f"{SERVE_KEY}-wrong"):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0)
        with suppress(openai.AuthenticationError):
            client.chat.completions.create(model="latest", messages=[{"role": "user", "content": "Which?"}])


def secrets_in(found: dict[str, bytes]) -> list[tuple[str, str]]:
    """Name of what was found, and which secret it holds."""
    return [
        (name, what)
        for name, content in found.items()
        for what, secret in SECRETS.items()
        if secret.encode() in content
    ]


def test_no_secret_is_left_or_shown_anywhere(store: ObjectStore, tmp_path: Path):
    given = {"OPENAI_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": STORE_KEY, "AWS_ACCESS_KEY_ID": "an-id"}
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    found: dict[str, bytes] = {}
    (tmp_path / "keys").write_text(f"{SERVE_KEY}\n")
    with tempfile.TemporaryDirectory(prefix="k-", ignore_cleanup_errors=True) as short, servers() as start:
        cluster, cache, port = Path(short) / "r", Path(short) / "cache", free_port()
        settings = [
            f"run.directory={store.uri('kept')}",
            "trainers.num_workers=0",  # what they are handed is none of this
            "correct.policy=teacher",
            "teacher.corrections=endpoint",
            f"teacher.endpoint.base_url=http://127.0.0.1:{start(quotes_the_key).server_address[1]}/v1",
            "teacher.endpoint.model=big",
            "teacher.endpoint.max_revisions=0",
        ]
        words = ["--config", str(CONFIG), *SETTINGS, *(word for each in settings for word in ("--set", each))]
        with command_lines() as lines, head_node(cluster, {"XDG_CACHE_HOME": str(cache), **given}) as address:
            command = [sys.executable, "-m", "jobs.cli", "submit", "--address", address, "--", "self-play", *words]
            job = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=os.environ | auth | given,
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert job.returncode == 0, job.stdout.decode()[-3000:]
            [run] = (cache / "medcritical").glob("*/tiny")
            options = ["--run", run, "--port", str(port), "--api-key-file", tmp_path / "keys"]
            served = [sys.executable, "-m", "jobs.serve", *options]
            ready = f"http://127.0.0.1:{port}/ready"
            log = tmp_path / "serve.log"
            own = [line for line in lines if str(cluster) in line]  # of tests before this one there may be another
            [gcs] = {each for line in own for each in line.split() if each.startswith("--gcs-address=")}
            environment = os.environ | auth | {"RAY_ADDRESS": gcs.partition("=")[2]}
            with running(
                served,
                lambda: urllib.request.urlopen(ready, timeout=5),
                log,
                timeout_s=PATIENCE_S,
                environment=environment,
            ):
                ask_with_a_right_key_and_a_wrong_one(port)
                found |= {f"dashboard {path}": page(address, path) for path in PAGES}
            found |= {"the job's output": job.stdout + job.stderr, "serve's output": log.read_bytes()}
            jobs = json.loads(found["dashboard /api/jobs/"])
            [submission] = {each["submission_id"] for each in jobs} - {None}  # who serves was not submitted
            found["the job's log"] = page(address, f"/api/jobs/{submission}/logs")
        found |= {f"arguments {number}": line.encode() for number, line in enumerate(sorted(lines))}
        found |= {f"cluster {name}": content for name, content in texts_in(Path(short))}
    fetch(store.uri("kept/tiny"), tmp_path / "fetched")
    found |= {f"run {name}": content for name, content in texts_in(tmp_path / "fetched")}
    assert b"(key)" in b"".join(found[name] for name in found if "reviews" in name), "the server's error is kept"
    assert b"Ray" in found["cluster r.log"]
    assert len(found) > 100
    assert secrets_in(found) == []
