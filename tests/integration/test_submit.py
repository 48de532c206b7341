"""Jobs on a real cluster with a token: refused before anything is sent, or run in an object store, stopped, resumed."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow.parquet as pq
import pytest
from head import TOKEN, head_node
from object_store import CREDENTIALS, ObjectStore
from ray.job_submission import JobSubmissionClient
from tiny_run import CONFIG, PATIENCE_S, REPOSITORY, SETTINGS, KilledRun

from actors.submission import package_of, resources_of
from medcritical_ray.errors import UserError
from medcritical_ray.planning.placement import Node
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.store.mirror import fetch

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SELF_PLAY = ["self-play", "--config", str(CONFIG), *SETTINGS]
MAINS = "import json, sys; from jobs.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"
GONE_S = 15.0


@pytest.fixture(scope="module")
def cluster(store: ObjectStore) -> Iterator[tuple[str, Path]]:
    """The dashboard's address, and where its machine keeps working copies."""
    with tempfile.TemporaryDirectory(prefix="h-", ignore_cleanup_errors=True) as directory:
        cache = Path(directory) / "cache"
        with head_node(Path(directory) / "r", {"XDG_CACHE_HOME": str(cache), **CREDENTIALS}) as address:
            yield address, cache / "medcritical"


def told(*commands: list[str], token: str | None = TOKEN) -> tuple[list[int], list[str]]:
    """The exit codes of commands, one after the other in one process, and what they print to stderr."""
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", MAINS, json.dumps(commands)],
        cwd=REPOSITORY,
        env=os.environ | auth,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


def ray_job(verb: str, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "ray", "job", verb, "--address", address, *words],
        cwd=REPOSITORY,
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def await_phase(store: ObjectStore, phase: str) -> float:
    """Seconds until the store has the phase."""
    started = time.monotonic()
    while f"iterations/000/phases/{phase}.json" not in store.names("runs/tiny"):
        assert time.monotonic() < started + PATIENCE_S, store.names("runs/tiny")
        time.sleep(0.2)
    return time.monotonic() - started


def await_no_engine() -> None:
    """Ray ends what a driver leaves behind, a moment after it."""
    deadline = time.monotonic() + GONE_S
    while engine_processes():
        assert time.monotonic() < deadline, f"engines are still there {GONE_S} s after their job was stopped"
        time.sleep(0.2)


def engine_processes() -> list[psutil.Process]:
    """Those of clusters that this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it is gone by now, or about to be
            if "EngineActor" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_who_has_no_token_or_another_is_told_at_once(cluster: tuple[str, Path], store: ObjectStore):
    address = cluster[0]
    words = ["submit", "--address", address, "--", *SELF_PLAY, "--set", f"run.directory={store.uri('runs')}"]
    for token, cause in ((None, "Authentication required"), ("another", "Authentication failed")):
        exit_codes, lines = told(words, token=token)
        assert exit_codes == [2]
        assert lines[-1].startswith(f"error: the cluster at {address} wants a token ({cause}")
        assert lines[-1].endswith("set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's")


def test_what_is_wrong_with_a_job_is_told_before_anything_is_sent(cluster: tuple[str, Path], store: ObjectStore):
    submit = ["submit", "--address", cluster[0], "--"]
    fitting = [*SELF_PLAY, "--set", f"run.directory={store.uri('runs')}"]
    exit_codes, lines = told(
        [*submit, *fitting, "--set", "engines.num_cpus=99"],
        [*submit, *fitting, "--set", "trainers.labels={role='trainer'}"],
        [*submit, *SELF_PLAY],
        [*submit, *fitting, "--set", "dpo.beta=-1"],
        [*submit, "self-play", "--config", "tests/nope.toml"],
        [*submit, "submit", "--", "runs"],
        ["submit", "--address", "http://127.0.0.1:9", "--", *fitting],
        ["report", "s3://bucket/runs/demo"],
    )
    assert exit_codes == [2] * 8
    beginnings = (
        "error: the plan does not fit the cluster: CPUs: 99.25 needed, 4 there: lower engines",
        "error: the plan does not fit the cluster: training workers: no node is labelled role=trainer: start some with",
        "error: run.directory = 'runs' is gone with the job",
        "error: --set: dpo.beta = -1",
        "error: --config tests/nope.toml: is not among what is sent of --working-dir .",
        "error: submit: must be one of demo, self-play, ",
        "error: nobody answers at http://127.0.0.1:9 within 10 s ",
        "error: s3://bucket/runs/demo: must be a path: `medcritical fetch s3://bucket/runs/demo DIR`",
    )
    errors = [line for line in lines if line.startswith("error: ")]
    assert [line[: len(start)] for line, start in zip(errors, beginnings, strict=True)] == list(beginnings)
    assert JobSubmissionClient(cluster[0], headers={"Authorization": f"Bearer {TOKEN}"}).list_jobs() == []


def test_a_submitted_run_is_stopped_and_goes_on_from_the_object_store_alone(
    cluster: tuple[str, Path], store: ObjectStore, killed_run: KilledRun, tmp_path: Path
):
    address, copies = cluster
    run_words, submitted = [*SELF_PLAY, "--set", f"run.directory={store.uri('runs')}"], datetime.now(UTC)
    exit_codes, _ = told(["submit", "--address", address, "--no-wait", "--", *run_words])
    assert exit_codes == [0]
    await_phase(store, "teach")
    assert engine_processes()
    job = next(word for word in ray_job("list", address).stdout.replace("'", " ").split() if word.startswith("tiny-"))
    assert "stopped" in ray_job("stop", address, job).stdout
    await_no_engine()
    events = [json.loads(line) for line in store.read("runs/tiny/events.jsonl").splitlines()]
    assert (events[-1]["event"], events[-1]["cause"]) == ("run stopped", "SIGTERM")
    phases = [event for event in events if event["event"] == "phase done"]
    waited = datetime.fromisoformat(phases[0]["time"]) - submitted
    seconds = waited.total_seconds()
    print(f"\n{phases[0]['phase']}, the first phase, was done {seconds:.1f} s after `medcritical submit` began")

    (working_copy,) = copies.glob("*/tiny")
    working_copy.rename(tmp_path / "lost")
    script = ["python", "-m", "jobs.self_play", *run_words[1:], "--resume"]
    done = ray_job("submit", address, "--working-dir", ".", "--", *script)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Accuracy on 20 test questions" in done.stdout
    fetch(store.uri("runs/tiny"), tmp_path / "fetched")
    fetched, local = RunDirectory(tmp_path / "fetched"), killed_run.run
    PolicyStore(fetched.policies).verify(1)
    assert [event["event"] for event in fetched.events()].count("run resumed") == 1
    assert fetched.steps(1, "train") == local.steps(1, "train")
    parts = sorted(path.relative_to(local.path) for path in local.path.rglob("*.parquet"))
    assert parts == sorted(path.relative_to(fetched.path) for path in fetched.path.rglob("*.parquet"))
    for part in parts:
        assert pq.read_table(fetched.path / part).equals(pq.read_table(local.path / part)), part


def test_nodes_are_known_with_their_labels_and_a_cluster_without_any_is_known_too():
    gpus = SimpleNamespace(labels={"role": "engine"}, resources_total={"CPU": 8.0, "GPU": 1.0, "memory": 2.0**35})
    head = SimpleNamespace(labels={}, resources_total={"CPU": 0.0, "object_store_memory": 2.0**30})
    there = resources_of([head, gpus], grows=False)
    assert (there.num_cpus, there.num_gpus, there.memory_gib, there.object_store_gib) == (8, 1, 32, 0)
    assert there.nodes[1] == Node(labels={"role": "engine"}, num_cpus=8, num_gpus=1, memory_gib=32)
    empty = resources_of([], grows=True)
    assert (empty.num_cpus, empty.object_store_gib, empty.nodes, empty.grows) == (0, None, (), True)


def test_a_working_directory_that_is_too_large_is_refused_with_its_largest_entries(tmp_path: Path):
    (tmp_path / ".rayignore").write_text("/ignored/\n")
    for name, num_mib in {"ignored/a": 200, "data/b": 60, "models/c": 50, "d.txt": 1}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(num_mib * 2**20)
    expected = (
        r"111 MiB would be sent, and at most 100 MiB can be; the largest: data 60 MiB, models 50 MiB, d\.txt 1 MiB"
    )
    with pytest.raises(UserError, match=expected):
        package_of(tmp_path)
    (tmp_path / ".rayignore").write_text("/ignored/\n/data/\n")
    assert package_of(tmp_path) == {"models/c": 50 * 2**20, "d.txt": 2**20, ".rayignore": 17}


def test_the_repository_is_sent_without_tests_and_environment():
    names = package_of(REPOSITORY)
    assert {"jobs/self_play.py", str(CONFIG), "medcritical_ray/clinic/knowledge.toml"} <= names.keys()
    assert {name.partition("/")[0] for name in names}.isdisjoint({"tests", ".venv", ".git", "docs", "runs"})
