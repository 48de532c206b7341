import json
from pathlib import Path

import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.names import policy_name, typed_version, version_of
from medcritical_ray.run.policies import PolicyStore


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", b"weights")


def make_model(directory: Path, weights: bytes) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def make_adapter(directory: Path) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(b"small")
    return directory


def test_a_published_policy_has_its_files_and_says_where_it_comes_from(store: PolicyStore, model: Path):
    policy = store.publish(3, model, parent=2, metrics={"accuracy": 0.5})
    assert policy.path == store.root / "v0003"
    assert (policy.path / "model.safetensors").read_bytes() == b"weights"
    assert (policy.manifest.version, policy.manifest.parent, policy.manifest.kind) == (3, 2, "full")
    assert policy.manifest.metrics == {"accuracy": 0.5}
    assert policy.manifest.files == {
        "config.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "model.safetensors": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
    }
    assert sorted(path.name for path in store.root.iterdir()) == ["v0003"]


def test_versions_are_listed_in_order(store: PolicyStore, model: Path):
    for version in [2, 0, 10]:
        store.publish(version, model, parent=None, metrics={})
    assert store.versions() == [0, 2, 10]


def test_an_empty_store_has_no_versions(store: PolicyStore):
    assert store.versions() == []


def test_a_directory_without_the_marker_does_not_count(store: PolicyStore, model: Path):
    store.publish(0, model, parent=None, metrics={})
    (store.publish(1, model, parent=0, metrics={}).path / "COMPLETE").unlink()
    assert store.versions() == [0]
    with pytest.raises(UserError, match=r"v0001 is no complete policy; complete versions in .*: v0000$"):
        store.get(1)


def test_the_next_publish_replaces_what_an_interrupted_one_left(store: PolicyStore, model: Path):
    (store.root / "v0001").mkdir(parents=True)
    (store.root / "v0001" / "half.safetensors").write_bytes(b"torn")
    policy = store.publish(1, model, parent=0, metrics={})
    assert sorted(path.name for path in store.root.iterdir()) == ["v0001"]
    assert not (policy.path / "half.safetensors").exists()


def test_publishing_the_same_again_changes_nothing(store: PolicyStore, model: Path):
    first = store.publish(1, model, parent=0, metrics={"accuracy": 0.5})
    assert store.publish(1, model, parent=0, metrics={"accuracy": 0.5}) == first


def test_publishing_other_weights_as_the_same_version_is_an_error(store: PolicyStore, model: Path, tmp_path: Path):
    store.publish(1, model, parent=0, metrics={})
    with pytest.raises(UserError, match="v0001 is already published with other files"):
        store.publish(1, make_model(tmp_path / "other", b"other"), parent=0, metrics={})
    assert (store.get(1).path / "model.safetensors").read_bytes() == b"weights"


def test_a_policy_can_be_published_from_a_policy(store: PolicyStore, model: Path):
    first = store.publish(0, model, parent=None, metrics={})
    second = store.publish(1, first.path, parent=0, metrics={})
    assert second.manifest.version == 1
    assert second.manifest.files == first.manifest.files


def test_an_adapter_names_the_policy_that_it_sits_on(store: PolicyStore, model: Path, tmp_path: Path):
    base = store.publish(0, model, parent=None, metrics={})
    adapter = make_adapter(tmp_path / "adapter")
    policy = store.publish(1, adapter, parent=0, metrics={}, kind="adapter", base="v0000")
    assert policy.base_path == base.path
    assert base.base_path is None


def test_an_adapter_may_sit_on_a_model_elsewhere(store: PolicyStore, model: Path, tmp_path: Path):
    adapter = make_adapter(tmp_path / "adapter")
    policy = store.publish(1, adapter, parent=None, metrics={}, kind="adapter", base=str(model))
    assert policy.base_path == model


def test_an_adapter_without_its_base_is_refused(store: PolicyStore, tmp_path: Path):
    adapter = make_adapter(tmp_path / "adapter")
    with pytest.raises(UserError, match="the model that it sits on as its base"):
        store.publish(1, adapter, parent=0, metrics={}, kind="adapter")
    with pytest.raises(UserError, match="v0000, named as the base of a policy, is no directory"):
        store.publish(1, adapter, parent=0, metrics={}, kind="adapter", base="v0000")


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "optimizer.pt", "model.pth"])
def test_pickled_files_are_refused_by_name(store: PolicyStore, model: Path, pickle: str):
    (model / pickle).write_bytes(b"")
    with pytest.raises(UserError, match=f"pickled files, which are never loaded: {pickle}"):
        store.publish(0, model, parent=None, metrics={})
    assert not store.root.exists()


def test_a_model_without_weights_is_refused(store: PolicyStore, model: Path):
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        store.publish(0, model, parent=None, metrics={})


def test_a_model_without_a_configuration_is_refused(store: PolicyStore, model: Path):
    (model / "config.json").unlink()
    with pytest.raises(UserError, match=r"it has no config\.json"):
        store.publish(0, model, parent=None, metrics={})


def test_a_directory_that_is_not_there_is_refused(store: PolicyStore, tmp_path: Path):
    with pytest.raises(UserError, match="missing is no directory of a model"):
        store.publish(0, tmp_path / "missing", parent=None, metrics={})


def test_a_whole_policy_is_verified(store: PolicyStore, model: Path):
    store.publish(0, model, parent=None, metrics={})
    store.verify(0)


def test_verification_names_the_damaged_file(store: PolicyStore, model: Path):
    policy = store.publish(0, model, parent=None, metrics={})
    (policy.path / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(UserError, match=r"v0000/model\.safetensors is damaged"):
        store.verify(0)


def test_verification_names_missing_and_added_files(store: PolicyStore, model: Path):
    policy = store.publish(0, model, parent=None, metrics={})
    (policy.path / "added.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"added\.safetensors was not published"):
        store.verify(0)
    (policy.path / "added.safetensors").unlink()
    (policy.path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        store.verify(0)


def test_a_damaged_manifest_is_named(store: PolicyStore, model: Path):
    path = store.publish(0, model, parent=None, metrics={}).path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"kind": "half"}))
    with pytest.raises(UserError, match=r"manifest\.json is no manifest of a policy: see kind"):
        store.get(0)
    path.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON"):
        store.get(0)


def test_a_version_has_one_name_and_may_be_typed_in_short():
    assert policy_name(3) == "v0003"
    assert [version_of(name) for name in ("v0003", "v12345", "v3", "v00003", "v٠٠٠٣", "")] == [3, 12345, *[None] * 4]
    assert [typed_version(text) for text in ("v0003", "v3", "3", "-3", "v", "latest")] == [3, 3, 3, None, None, None]
