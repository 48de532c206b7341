"""A run whose object store is slow, fails or goes silent: it waits, says which file, and goes on with the store."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_store import Fault, FaultyStore, faulty
from object_store import ObjectStore

from medcritical_ray.config import Config
from medcritical_ray.errors import StorageFailed, WaitTimeout
from medcritical_ray.opening import settled_mirror
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.pruning import prune
from medcritical_ray.run.record import record_of
from medcritical_ray.run.verification import verify_run
from medcritical_ray.store.mirror import fetch
from medcritical_ray.store.remote import Remote

pytestmark = pytest.mark.integration

COMMAND = "medcritical self-play --config x.toml --resume"


@pytest.fixture
def proxy(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("medcritical_ray.store.remote._PAUSE_S", 0.2)
    with faulty(store) as each:
        yield each


def opened(proxy: FaultyStore, name: str, *, resume: bool = False) -> RunDirectory:
    """Of a run that may go without its store for a second, beyond what the store's client waits."""
    config = Config.model_validate({"run": {"directory": proxy.uri(f"runs/{name}"), "store_timeout_s": 1.0}})
    mirror = settled_mirror(config, resume=resume, resume_command=COMMAND)
    assert mirror is not None
    begin = RunDirectory.resume if resume else RunDirectory.create
    return begin(mirror.root, record_of(config), resume_command=COMMAND, keeper=mirror)


def publish(run: RunDirectory, version: int) -> None:
    """A phase that publishes a version, whose parent is the one before."""
    source = run.iteration(version) / "trained"
    source.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (source / name).write_text(f"{name} of version {version}")
    parent = version - 1 if version else None
    policy = PolicyStore(run.policies).publish(version, source, parent=parent, metrics={})
    run.mark_done(version, "publish", {"version": policy.version})
    run.finish_iteration(version, {"adopted_version": version})


def fetched(proxy: FaultyStore, name: str, out: Path) -> RunDirectory:
    """The run as the store has it."""
    fetch(proxy.store.uri(f"runs/{name}/demo"), out)
    return RunDirectory(out)


def test_a_slow_store_has_the_run_wait_and_nothing_else(proxy: FaultyStore, tmp_path: Path):
    proxy.fault, proxy.delay_s = "slow", 0.3
    with opened(proxy, "slow") as run:
        publish(run, 0)
    assert proxy.num_faults > 10
    copy = fetched(proxy, "slow", tmp_path / "copy")
    assert verify_run(copy).faults == []
    assert PolicyStore(copy.policies).versions() == [0]


@pytest.mark.parametrize("fault", ["error", "cut", "silent"])
def test_a_store_that_fails_for_a_while_is_asked_again(proxy: FaultyStore, tmp_path: Path, fault: Fault):
    with opened(proxy, f"again-{fault}") as run:
        publish(run, 0)
        proxy.fault, proxy.where = fault, "model.safetensors"
        timer = threading.Timer(0.8, setattr, (proxy, "fault", "none"))
        timer.start()
        publish(run, 1)
        timer.join()
    assert proxy.num_faults >= 1
    copy = fetched(proxy, f"again-{fault}", tmp_path / "copy")
    assert verify_run(copy).faults == []
    assert PolicyStore(copy.policies).versions() == [0, 1]


@pytest.mark.parametrize("fault", ["error", "cut"])
def test_a_store_that_goes_on_failing_ends_the_wait_with_the_file_and_the_run_resumes(
    proxy: FaultyStore, tmp_path: Path, fault: Fault
):
    name = f"fails-{fault}"
    run = opened(proxy, name)
    publish(run, 0)
    proxy.fault, proxy.where = fault, "policies/v0001/model.safetensors"
    started = time.monotonic()
    with pytest.raises(WaitTimeout) as caught:
        publish(run, 1)
    assert time.monotonic() - started < 60
    message = str(caught.value)
    assert message.startswith("s3://medcritical/runs/")
    assert "could not be used for 1 s: " in message
    assert "policies/v0001/model.safetensors" in message
    assert message.endswith(": see to the store, or raise run.store_timeout_s")
    assert "\n" not in message
    run.close()
    proxy.fault = "none"
    half = fetched(proxy, name, tmp_path / "half")
    assert PolicyStore(half.policies).versions() == [0]
    PolicyStore(half.policies).verify(0)
    assert verify_run(half).faults == []
    with opened(proxy, name, resume=True) as run:
        run.finish_iteration(1, {"adopted_version": 1})
    whole = fetched(proxy, name, tmp_path / "whole")
    assert verify_run(whole).faults == []
    assert PolicyStore(whole.policies).versions() == [0, 1]


def test_a_full_disk_here_is_not_the_stores_fault_and_is_told_at_once(
    proxy: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with opened(proxy, "full") as run:
        publish(run, 0)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "hidden").symlink_to("/dev/full")
    monkeypatch.setattr("medcritical_ray.files._hidden_beside", lambda path: tmp_path / "copy" / "hidden")
    remote = Remote(proxy.uri("runs/full/demo"), patience_s=60.0)
    started = time.monotonic()
    with pytest.raises(StorageFailed, match=r"copy/run\.json cannot be written: No space left on device$"):
        remote.download(["run.json"], tmp_path / "copy")
    assert time.monotonic() - started < 20


def test_what_a_run_has_pruned_goes_from_the_store_too_and_no_machine_fetches_it(proxy: FaultyStore, tmp_path: Path):
    with opened(proxy, "pruned") as run:
        for version in (0, 1, 2):
            publish(run, version)
        root = run.path
        assert prune(run.policies / "v0001")
        assert prune(run.iteration(1) / "trained")
    names = proxy.store.names("runs/pruned/demo")
    kept = ["PRUNED", "manifest.json"]
    assert [name for name in names if name.startswith("policies/v0001")] == [f"policies/v0001/{each}" for each in kept]
    assert [name for name in names if "001/trained" in name] == ["iterations/001/trained/PRUNED"]
    assert "policies/v0002/model.safetensors" in names
    proxy.store.write("runs/pruned/demo/policies/v0001/model.safetensors", b"of a push that was cut off")
    shutil.rmtree(root)
    with opened(proxy, "pruned", resume=True) as run:
        assert sorted(entry.name for entry in (run.policies / "v0001").iterdir()) == kept
        assert PolicyStore(run.policies).versions() == [0, 2]
        assert PolicyStore(run.policies).published() == [0, 1, 2]
