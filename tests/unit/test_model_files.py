"""What is told from a model's files alone."""

import json
import struct
from pathlib import Path

import pytest

from medcritical_ray.engines.weights import checkpoint_names, read_blobs
from medcritical_ray.errors import UserError
from medcritical_ray.model_files import check_model, hash_of_weights, size_by_config, tensor_shapes

SHAPES = {"model.embed_tokens.weight": [10, 4], "model.norm.weight": [4]}


def write_weights(file: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of float32 zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "tie_word_embeddings": true}')
    (tmp_path / "tokenizer.json").write_text("{}")
    write_weights(tmp_path / "model.safetensors", SHAPES)
    return tmp_path


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_model(path)
    return str(caught.value)


def test_the_size_of_a_model_is_that_of_its_files(model: Path):
    num_bytes = (model / "model.safetensors").stat().st_size
    size = check_model(model)
    assert (size.num_parameters, size.num_bytes, size.architecture) == (44, num_bytes, None)
    assert size.untold.startswith("config.json does not say hidden_size, num_hidden_layers")


def test_a_config_alone_tells_a_size(tmp_path: Path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = {"model_type": "mistral", "vocab_size": 100, "dtype": "float32", **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = size_by_config(tmp_path)
    # Embeddings and head of 800, two layers of 4 * 64 + 3 * 128 + 16, the last norm's 8.
    assert (size.num_parameters, size.num_bytes) == (2920, 11_680)


def test_a_config_that_tells_no_size_says_why(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert size_by_config(tmp_path).num_parameters == 0
    assert size_by_config(tmp_path).untold.startswith("config.json does not say hidden_size")


def test_other_weights_have_another_hash(model: Path):
    before = hash_of_weights(model)
    (model / "config.json").write_text('{"tie_word_embeddings": false}')
    assert hash_of_weights(model) == before
    write_weights(model / "more.safetensors", {"a": [3]})
    assert hash_of_weights(model) != before


def test_shards_are_added_up(model: Path):
    (model / "model.safetensors").unlink()
    write_weights(model / "model-00001-of-00002.safetensors", {"a": [3]})
    write_weights(model / "model-00002-of-00002.safetensors", {"b": [5]})
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert check_model(model).num_parameters == 8


def test_weights_in_a_second_form_beside_the_indexed_ones_are_left_alone(model: Path):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    before = checkpoint_names(model)
    write_weights(model / "consolidated.safetensors", {"layers.0.a": [3]})
    assert checkpoint_names(model) == before
    assert [each.size for each in read_blobs(model)] == [(model / "model.safetensors").stat().st_size]


def test_a_missing_shard_is_told(model: Path):
    weight_map = {"a": "model.safetensors", "b": "other.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert message_of(model) == f"{model}: 1 of 2 weight files are missing, such as other.safetensors"


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_names_no_files_is_told(model: Path, index: str):
    (model / "model.safetensors.index.json").write_text(index)
    assert message_of(model) == f"{model}/model.safetensors.index.json: names no weight files of this directory"


def test_a_missing_directory_is_told():
    assert message_of(Path("nowhere")).startswith("nowhere: no such directory")


def test_an_adapter_is_no_model(model: Path):
    (model / "config.json").rename(model / "adapter_config.json")
    assert "holds a LoRA adapter, not a model" in message_of(model)


def test_a_missing_config_is_told(model: Path):
    (model / "config.json").unlink()
    assert message_of(model) == f"{model}/config.json: no such file"


@pytest.mark.parametrize("text", ["{", "\x00", "[]"])
def test_a_config_that_is_no_json_object_is_told(model: Path, text: str):
    (model / "config.json").write_text(text)
    assert message_of(model).startswith(f"{model}/config.json: ")


def test_a_directory_without_weights_is_told(model: Path):
    (model / "model.safetensors").unlink()
    assert message_of(model) == f"{model}: no weights: *.safetensors files must lie there"


def test_pickles_are_refused(model: Path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "weights only as pytorch_model.bin: pickles are not loaded, because they can run code" in message_of(model)


def test_a_missing_tokenizer_is_told(model: Path):
    (model / "tokenizer.json").unlink()
    assert "no tokenizer" in message_of(model)


def test_weights_without_tensors_are_told(model: Path):
    write_weights(model / "model.safetensors", {})
    assert "hold no weights" in message_of(model)


def test_a_download_that_broke_off_is_told(model: Path):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert message_of(model) == f"{file}: not a complete safetensors file: download it again"


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"version https://git-lfs.github.com/spec/v1\n", bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"[]"],
)
def test_a_file_that_is_no_safetensors_file_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="safetensors file"):
        tensor_shapes(tmp_path / "model.safetensors")
