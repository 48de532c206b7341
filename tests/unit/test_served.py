from pathlib import Path

import pytest

from medcritical_ray.engines.served import ServedPolicy, StaleVersion, check_weights, served_policy, served_rank
from medcritical_ray.errors import UserError
from medcritical_ray.run.policies import PolicyStore

EMPTY_SHA256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""Of "{}", which is what all files here hold."""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A directory with the files of a model, whose contents do not matter here."""
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).write_text("{}")
    return directory


def test_a_models_directory_is_served_as_it_is(model_dir: Path):
    assert served_policy(3, model_dir) == ServedPolicy(version=3, model_dir=model_dir)


def test_an_adapter_is_served_over_the_model_that_its_manifest_names(model_dir: Path, tmp_path: Path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text("{}")
    store = PolicyStore(tmp_path / "policies")
    store.publish(0, model_dir, parent=None, metrics={})
    store.publish(1, adapter, parent=0, metrics={}, kind="adapter", base="v0000")
    assert served_policy(1, store.path_of(1)) == ServedPolicy(
        version=1,
        model_dir=store.path_of(0),
        adapter_dir=store.path_of(1),
        hashes=(
            (store.path_of(0) / "model.safetensors", EMPTY_SHA256),
            (store.path_of(1) / "adapter_model.safetensors", EMPTY_SHA256),
        ),
    )


def test_weights_that_are_not_those_of_the_version_asked_for_are_refused(model_dir: Path, tmp_path: Path):
    store = PolicyStore(tmp_path / "policies")
    store.publish(0, model_dir, parent=None, metrics={})
    policy = served_policy(0, store.path_of(0))
    check_weights(policy)
    weights = store.path_of(0) / "model.safetensors"
    weights.unlink()
    weights.write_text("[]")
    with pytest.raises(StaleVersion, match=r"v0000/model\.safetensors on .* is not that of policy version 0"):
        check_weights(policy)
    weights.unlink()
    with pytest.raises(StaleVersion, match="is not that of policy version 0"):
        check_weights(policy)


def test_a_directory_without_weights_is_not_served(model_dir: Path):
    (model_dir / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights: \*\.safetensors files must lie there"):
        served_policy(0, model_dir)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt", "model.pkl"])
def test_pickled_weights_are_refused_by_the_name_of_their_file(model_dir: Path, name: str):
    (model_dir / "model.safetensors").rename(model_dir / name)
    with pytest.raises(UserError, match=f"weights only as {name}: pickles are not loaded, because they can run code"):
        served_policy(0, model_dir)


def test_an_adapters_pickle_is_not_read_whatever_lies_beside_it(model_dir: Path, tmp_path: Path):
    store = PolicyStore(tmp_path / "policies")
    store.publish(0, model_dir, parent=None, metrics={})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text("{}")
    path = store.publish(1, adapter, parent=0, metrics={}, kind="adapter", base="v0000").path
    (path / "adapter_model.safetensors").rename(path / "other.safetensors")
    (path / "adapter_model.bin").touch()
    with pytest.raises(
        UserError, match=r"weights only as adapter_model\.bin: pickles are not loaded: adapter_model\.saf"
    ):
        served_policy(1, path)


def test_a_directory_without_a_config_is_not_served(tmp_path: Path):
    with pytest.raises(UserError, match=r"is no directory of a model: it has no config\.json"):
        served_policy(0, tmp_path)


def test_adapters_are_served_at_the_next_rank_that_vllm_has():
    assert [served_rank(rank) for rank in (1, 6, 20, 32, 512)] == [1, 8, 32, 32, 512]
    with pytest.raises(UserError, match="LoRA rank 513 is more than the engines serve: at most 512"):
        served_rank(513)
