"""Names that become paths: none leads out of the directory that it is put into."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from hostile import plain, texts
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import FileType
from pydantic import ValidationError

from medcritical_ray.config import RunConfig
from medcritical_ray.errors import UserError
from medcritical_ray.model_files import weight_files
from medcritical_ray.names import stays_within
from medcritical_ray.run.policies import PolicyStore, read_manifest
from medcritical_ray.serving.model_ids import model_name, read_model_id
from medcritical_ray.store.mirror import fetch
from medcritical_ray.store.remote import Remote
from medcritical_ray.study.arms import read_arms

ROOT = Path("/runs/demo")
ESCAPES = ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a//b", "a/./b", "a/", "./a", "a\\..\\b", "a\0b"]

parts = st.sampled_from(["..", ".", "", "a", "/", "\\", "~", "C:", "\0"])
names = texts.map(plain) | st.lists(parts, max_size=5).map("/".join)


@given(names)
def test_a_name_that_stays_within_its_directory_is_below_it(name: str):
    if stays_within(name):
        path = ROOT / name
        assert path.is_relative_to(ROOT)
        assert Path(*path.parts).resolve().is_relative_to(ROOT.resolve())
        assert path != ROOT


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_that_leads_elsewhere_stays_within(name: str):
    assert not stays_within(name)


@pytest.mark.parametrize("name", ["model.safetensors", "iterations/001/DONE", "..a", "发热.parquet", "a b", ".lock"])
def test_any_name_of_a_run_stays_within(name: str):
    assert stays_within(name)


@given(names)
def test_a_run_is_called_by_no_name_that_leads_elsewhere(name: str):
    try:
        config = RunConfig(name=name)
    except ValidationError:
        return
    assert stays_within(config.name)
    assert "/" not in config.name


@given(names | st.sampled_from(["v0001", "v٠٠٠١", "v0001\n", "latest", "latest/..", "v99999999999"]))
def test_a_model_is_called_by_no_name_that_is_not_its_versions(name: str):
    model = read_model_id(name)
    if model is not None:
        version = "latest" if model.version is None else model_name(model.version)
        assert name == version + (":self-correct" if model.self_correct else "")
        assert stays_within(version)


@given(st.dictionaries(names, st.dictionaries(names, st.integers(0, 3), max_size=2), min_size=1, max_size=2))
def test_an_arm_of_a_study_is_called_by_no_name_that_leads_elsewhere(arms: dict[str, Any]):
    with TemporaryDirectory() as directory:
        file = Path(directory) / "arms.toml"
        file.write_text(tomli_w.dumps(arms))
        try:
            read = read_arms(file)
        except UserError:
            return
    assert all(stays_within(arm) and "/" not in arm for arm in read)


@pytest.mark.parametrize("name", ESCAPES)
def test_a_manifest_that_names_a_file_elsewhere_is_damaged(name: str, tmp_path: Path):
    source = tmp_path / "model"
    source.mkdir()
    for file in ("config.json", "model.safetensors"):
        (source / file).write_text("{}")
    policy = PolicyStore(tmp_path / "policies").publish(0, source, parent=None, metrics={})
    manifest = json.loads((policy.path / "manifest.json").read_text())
    (policy.path / "manifest.json").write_text(json.dumps(manifest | {"files": {name: "0" * 64}}))
    with pytest.raises(UserError, match=r"manifest\.json is no manifest of a policy: see files"):
        read_manifest(policy.path)


@pytest.mark.parametrize("name", ESCAPES)
def test_an_index_that_names_weights_elsewhere_is_refused(name: str, tmp_path: Path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UserError, match="names no weight files of this directory"):
        weight_files(tmp_path)


class Listing:
    """A store that holds what it likes."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def get_file_info(self, selector: Any) -> list[Any]:
        mtime = datetime(2026, 1, 1, tzinfo=UTC)
        return [SimpleNamespace(path=path, type=FileType.File, size=1, mtime=mtime) for path in self._paths]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "//x", ".."])
def test_a_store_whose_files_would_lie_elsewhere_is_not_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Listing("bucket/demo/run.json", f"bucket/demo/{name}")
    monkeypatch.setattr(Remote, "_opened", (store, "bucket/demo"))
    with pytest.raises(UserError, match=r"s3://bucket/demo holds '.*', which is no file of a run: remove it there"):
        fetch("s3://bucket/demo", tmp_path)
    assert list(tmp_path.iterdir()) == []
