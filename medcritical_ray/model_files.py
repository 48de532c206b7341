"""What a directory with a model holds, told from its files alone: nothing of the model is loaded."""

import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcritical_ray.errors import UserError
from medcritical_ray.files import parse_json, read_json, sha256_of
from medcritical_ray.names import stays_within
from medcritical_ray.planning.architecture import Architecture, architecture_of, bytes_per_parameter, untold

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""How files with pickles end, which can run code and are never loaded."""

_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """How large a model is: its parameters as its weight files have them, and the size of those files.

    `architecture` is None where config.json does not tell it, and `untold` says what is missing there.
    """

    num_parameters: int
    num_bytes: int
    architecture: Architecture | None = None
    untold: str = ""


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds a LoRA adapter as PEFT saves it."""
    return (directory / ADAPTER_CONFIG).is_file()


def check_adapter(directory: Path) -> None:
    """Raises UserError if an adapter's weights are not in the one file that holds no pickles: PEFT and vLLM would read
    others, too."""
    if not (directory / ADAPTER_WEIGHTS).is_file():
        pickles = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES)
        held = f"weights only as {pickles[0]}: pickles are not loaded" if pickles else "no weights"
        raise UserError(f"{directory}: {held}: {ADAPTER_WEIGHTS} must lie there")


def check_model(directory: str | Path) -> ModelSize:
    """The size of the model in a Hugging Face directory that has all it needs to be served and trained.

    Needed are config.json, weights in safetensors files that are complete, and a tokenizer. Raises UserError.
    """
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"{path}: no such directory: must be that of a downloaded Hugging Face model")
    if is_adapter(path) and not (path / "config.json").exists():
        raise UserError(f"{path}: holds a LoRA adapter, not a model: merge it, or name the model below it")
    config = _read_json(path / "config.json")
    files = weight_files(path)
    if not any(all((path / name).exists() for name in names) for names in _TOKENIZERS):
        raise UserError(f"{path}: no tokenizer: tokenizer.json (or tokenizer.model) must lie beside the weights")
    shapes = {name: shape for file in files for name, shape in tensor_shapes(file).items()}
    if not shapes:
        raise UserError(f"{path}: its weight files hold no weights")
    return ModelSize(
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        num_bytes=sum(file.stat().st_size for file in files),
        architecture=architecture_of(config),
        untold=untold(config),
    )


def size_by_config(directory: Path) -> ModelSize:
    """The size that a model has by its config.json, whether weights lie beside it or not; 0 where that does not tell.

    Raises UserError if there is no config.json.
    """
    config = _read_json(directory / "config.json")
    architecture = architecture_of(config)
    num_parameters = architecture.num_parameters if architecture else 0
    return ModelSize(
        num_parameters=num_parameters,
        num_bytes=num_parameters * bytes_per_parameter(config),
        architecture=architecture,
        untold=untold(config),
    )


def hash_of_weights(directory: Path) -> str:
    """The SHA-256 of the SHA-256 of each weight file, in order. Raises UserError if there are none."""
    digests = [sha256_of(file) for file in weight_files(directory)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file, from its header alone. Raises UserError.

    A file is 8 bytes with the header's length, the header as JSON, and the tensors' bytes
    (https://github.com/huggingface/safetensors#format).
    """
    num_bytes = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (num_header_bytes,) = struct.unpack("<Q", stream.read(8))
            if num_header_bytes > num_bytes - 8:
                raise UserError(f"{file}: not a complete safetensors file: download it again")
            header = parse_json(stream.read(num_header_bytes))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: [int(size) for size in entry["shape"]] for name, entry in header.items()}
    except UserError:
        raise
    except (struct.error, ValueError, AttributeError, LookupError, TypeError):
        raise UserError(f"{file}: not a safetensors file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    if num_bytes != 8 + num_header_bytes + end:
        raise UserError(f"{file}: not a complete safetensors file: download it again")
    return shapes


def weight_files(path: Path) -> list[Path]:
    """The files that hold a model's weights: those that the index names, or else all safetensors files. A download may
    hold the same weights in a second form beside them. Raises UserError if there are none."""
    if (path / _INDEX).exists():
        names = _indexed_names(path / _INDEX)
        missing = [name for name in names if not (path / name).exists()]
        if missing:
            raise UserError(f"{path}: {len(missing)} of {len(names)} weight files are missing, such as {missing[0]}")
        return [path / name for name in names]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
        if pickles:
            reason = "pickles are not loaded, because they can run code: convert them to safetensors"
            raise UserError(f"{path}: weights only as {pickles[0]}: {reason}")
        raise UserError(f"{path}: no weights: *.safetensors files must lie there")
    return files


def _indexed_names(index: Path) -> list[str]:
    weight_map = _read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or not all(isinstance(name, str) and stays_within(name) for name in names):
        raise UserError(f"{index}: names no weight files of this directory")
    return sorted(names)


def _read_json(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold a JSON object")
    return content
