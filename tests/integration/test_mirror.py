"""A run in an object store: what gets there, in which order, and what a machine takes from there."""

import shutil
import socket
from pathlib import Path

import pytest
from object_store import ObjectStore

from medcritical_ray.config import Config
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout
from medcritical_ray.opening import settled_mirror, take_over
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.record import new_record
from medcritical_ray.store.mirror import Mirror, fetch, mirror_of
from medcritical_ray.store.node_copies import bring
from medcritical_ray.store.remote import Remote

pytestmark = pytest.mark.integration

COMMAND = "medcritical self-play --config x.toml --resume"


@pytest.fixture
def config(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Of a run that nobody has begun, with its working copy in the test's own directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = store.uri(f"runs/{request.node.name}")
    return Config.model_validate({"run": {"directory": directory, "store_timeout_s": 1.0}})


def opened(config: Config, *, resume: bool = False) -> RunDirectory:
    mirror = settled_mirror(config, resume=resume, resume_command=COMMAND)
    assert mirror is not None
    begin = RunDirectory.resume if resume else RunDirectory.create
    return begin(mirror.root, new_record({}), resume_command=COMMAND, keeper=mirror)


def prefix_of(config: Config) -> str:
    return config.run.directory.partition("?")[0].removeprefix(f"s3://{ObjectStore.bucket}/") + "/demo"


def publish(run: RunDirectory, directory: Path, version: int, text: str = "weights") -> None:
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).write_text(text)
    PolicyStore(run.policies).publish(version, directory, parent=None, metrics={})


def test_a_run_is_in_the_store_when_a_phase_is_done_and_goes_on_from_there_alone(
    config: Config, store: ObjectStore, tmp_path: Path
):
    with opened(config) as run:
        publish(run, tmp_path / "model", 0)
        (run.path / ".half.tmp").write_text("in the making")
        run.mark_done(1, "publish", {"version": 0})
        assert store.names(prefix_of(config)) == [
            "driver.json",
            "events.jsonl",
            "iterations/001/phases/publish.json",
            "policies/v0000/COMPLETE",
            "policies/v0000/config.json",
            "policies/v0000/manifest.json",
            "policies/v0000/model.safetensors",
            "run.json",
        ]
        events = (run.path / "events.jsonl").read_bytes()
    assert store.read(f"{prefix_of(config)}/events.jsonl") == events
    shutil.rmtree(tmp_path / "cache")
    with opened(config, resume=True) as run:
        assert run.result(1, "publish") == {"version": 0}
        PolicyStore(run.policies).verify(0)
        assert [event["event"] for event in run.events()] == ["run created", "phase done", "run resumed"]


def test_what_says_that_something_is_done_comes_after_all_that_it_speaks_of(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uploaded: list[str] = []
    upload = Remote.upload

    def noted(self: Remote, names: list[str], root: Path) -> None:
        uploaded.extend(sorted(names))
        upload(self, names, root)

    with opened(config) as run:
        publish(run, tmp_path / "model", 0)
        monkeypatch.setattr(Remote, "upload", noted)
        run.finish_iteration(0, {"adopted_version": 0})
    assert [name for name in uploaded if name != "events.jsonl"] == [
        "policies/v0000/config.json",
        "policies/v0000/manifest.json",
        "policies/v0000/model.safetensors",
        "policies/v0000/COMPLETE",
        "iterations/000/metrics.json",
        "iterations/000/DONE",
    ]


def test_a_working_copy_that_another_machine_has_overtaken_is_replaced(config: Config, tmp_path: Path):
    with opened(config) as run:
        publish(run, tmp_path / "model", 0)
        run.mark_done(0, "publish", {"by": "the first machine"})
    here, first = run.path, tmp_path / "first"
    here.rename(first)
    with opened(config, resume=True) as run:
        run.mark_done(1, "generate", {"by": "the second machine"})
    shutil.rmtree(here)
    first.rename(here)
    (here / "iterations" / "001" / "attempts").mkdir(parents=True)
    (here / "iterations" / "001" / "attempts" / "part-00000.parquet").write_text("that never got to the store")
    with opened(config, resume=True) as run:
        assert run.result(1, "generate") == {"by": "the second machine"}
        assert not (run.iteration(1) / "attempts").exists()


def test_a_working_copy_that_is_ahead_of_the_store_stays(config: Config, store: ObjectStore):
    with opened(config) as run:
        pass
    (run.path / "data").mkdir()
    (run.path / "data" / "train.parquet").write_text("written before the store went away")
    with opened(config, resume=True) as run:
        assert (run.path / "data" / "train.parquet").exists()
    assert store.read(f"{prefix_of(config)}/data/train.parquet") == b"written before the store went away"


def test_a_process_whose_run_was_taken_over_leaves_it_alone(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = opened(config)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    with (
        opened(config, resume=True),
        pytest.raises(RunFailed, match=rf"is worked on by process \d+ on {socket.gethostname()}"),
    ):
        run.mark_done(1, "generate", {})
    run.close()


def test_what_a_driver_did_while_another_waited_to_resume_is_not_done_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = opened(config)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    mirror = settled_mirror(config, resume=True, resume_command=COMMAND)
    first.mark_done(1, "generate", {"by": "the first machine"})
    take_over(mirror)
    with pytest.raises(RunFailed, match="is worked on by process"):
        first.mark_done(1, "correct", {})
    run = RunDirectory.resume(mirror.root, new_record({}), resume_command=COMMAND, keeper=mirror)
    with run:
        assert run.result(1, "generate") == {"by": "the first machine"}
        assert not run.done(1, "correct")
        assert [event["event"] for event in run.events()] == ["run created", "phase done", "run resumed"]
    first.close()


def test_a_run_that_is_there_is_not_begun_anew_and_one_that_is_not_is_not_resumed(config: Config, tmp_path: Path):
    with pytest.raises(UserError, match=r"^there is no run at s3://.*: nothing to resume$"):
        opened(config, resume=True)
    opened(config).close()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=rf"^s3://.*/demo\?.* holds a run already: resume it with `{COMMAND}`"):
        opened(config)


def test_a_bucket_that_is_not_there_is_told_before_anything_is_written(store: ObjectStore, tmp_path: Path):
    mirror = Mirror(tmp_path / "copy", store.uri("runs/demo", bucket="nowhere"), 60.0)
    with pytest.raises(
        UserError, match=r"^s3://nowhere/runs/demo\?.* cannot be used: .*NO_SUCH_BUCKET.*: check address"
    ):
        mirror.settle(resume=False, resume_command=COMMAND)
    assert not (tmp_path / "copy").exists()


def test_a_store_that_is_down_ends_the_wait_in_time():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"s3://bucket/runs?endpoint_override=http://127.0.0.1:{taken.getsockname()[1]}&region=us-east-1"
        with pytest.raises(WaitTimeout, match=r"^s3://bucket/runs\?.* could not be used for 1 s: .*store_timeout_s$"):
            Remote(uri, patience_s=1.0).check()


def test_a_machine_without_the_policy_fetches_it_and_the_model_below_it_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with opened(config) as run:
        publish(run, tmp_path / "model", 0)
        (tmp_path / "adapter").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / "adapter" / name).write_text("{}")
        store = PolicyStore(run.policies)
        store.publish(1, tmp_path / "adapter", parent=0, metrics={}, kind="adapter", base="v0000")
    shutil.rmtree(run.path)
    mirror = mirror_of(config)
    bring(run.policies / "v0001", mirror)
    assert store.versions() == [0, 1]
    fetched = (run.policies / "v0000" / "model.safetensors").stat().st_mtime_ns
    bring(run.policies / "v0001", mirror)
    assert (run.policies / "v0000" / "model.safetensors").stat().st_mtime_ns == fetched


def test_a_policy_that_comes_damaged_is_not_served(config: Config, store: ObjectStore, tmp_path: Path):
    with opened(config) as run:
        publish(run, tmp_path / "model", 0)
    shutil.rmtree(run.path)
    store.write(f"{prefix_of(config)}/policies/v0000/model.safetensors", b"others")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        bring(run.policies / "v0000", mirror_of(config))


def test_a_policy_on_no_shared_file_system_is_told_with_the_machine(tmp_path: Path):
    with pytest.raises(UserError, match=rf"is not on {socket.gethostname()}: run\.directory and student\.path must be"):
        bring(tmp_path / "v0000", None)


def test_a_run_is_copied_to_a_directory(config: Config, tmp_path: Path):
    with opened(config) as run:
        run.mark_done(1, "generate", {"num": 3})
    uri = mirror_of(config).uri
    assert fetch(uri, tmp_path / "copy") == 4
    assert RunDirectory(tmp_path / "copy").result(1, "generate") == {"num": 3}
