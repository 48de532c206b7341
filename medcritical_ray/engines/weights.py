"""Full weights on their way from a policy's safetensors files into an engine."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcritical_ray.errors import UserError
from medcritical_ray.files import sha256_of
from medcritical_ray.model_files import weight_files
from medcritical_ray.run.policies import MANIFEST, read_manifest

if TYPE_CHECKING:
    import torch

Blob = bytes | np.ndarray | Path
"""One safetensors file: its contents as bytes, or as an array of uint8 that the object store hands out, read-only; or
where it lies, for whoever reads it on the same machine."""

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What safetensors calls the types of tensors, and torch."""

EMBEDDINGS = "embed_tokens.weight"
OUTPUT_HEAD = "lm_head.weight"


def read_blobs(directory: Path) -> list[np.ndarray]:
    """The contents of a policy's safetensors files. Raises UserError as `check_files` does."""
    check_files(directory)
    return [mapped(path) for path in weight_files(directory)]


def check_files(directory: Path) -> None:
    """Compares a policy's safetensors files with its manifest, if there is one. Raises UserError, naming the file that
    is damaged."""
    recorded = read_manifest(directory).files if (directory / MANIFEST).exists() else {}
    for path in weight_files(directory):
        if path.name in recorded and sha256_of(path) != recorded[path.name]:
            raise UserError(f"{path} is damaged: its SHA-256 is not that of the manifest")


def mapped(path: Path) -> np.ndarray:
    """The contents of a file, an array of uint8, mapped rather than read into memory of their own."""
    if not path.stat().st_size:  # a damaged one, which cannot be mapped
        return np.empty(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def checkpoint_names(directory: Path) -> set[str]:
    """The names of all tensors in a policy's safetensors files."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in weight_files(directory):
        with safe_open(path, framework="numpy") as tensors:
            names |= set(tensors.keys())
    return names


def check_names(policy: str, names: set[str], expected: set[str], *, tied: bool) -> None:
    """Raises UserError if a policy's tensors are not those of the model that an engine started with; of a model with
    tied embeddings, the output head may be there or not."""
    optional = {OUTPUT_HEAD} if tied else set()
    names, expected = names - optional, expected - optional
    if names != expected:
        different = ", ".join(sorted(names ^ expected)[:3])
        raise UserError(
            f"{policy} is not of the model that the engine serves: {len(expected - names)} tensors missing, "
            f"{len(names - expected)} unknown ({different})"
        )


def decode_weights(blobs: Sequence[Blob]) -> "dict[str, torch.Tensor]":
    """The tensors of all files by name, on the CPU and in the files' own types.

    They are views, to be read only: safetensors' own reading from memory copies all bytes twice. A file is the length
    of a header in eight bytes, the header in JSON, and the tensors' bytes.
    """
    import torch

    weights: dict[str, torch.Tensor] = {}
    for blob in blobs:
        contents = mapped(blob) if isinstance(blob, Path) else blob
        view = memoryview(contents if isinstance(contents, bytes) else contents.data)
        start = 8 + int.from_bytes(view[:8], "little")
        header = json.loads(bytes(view[8:start]))
        header.pop("__metadata__", None)
        for name, about in header.items():
            first, end = about["data_offsets"]
            dtype = getattr(torch, _TYPES[about["dtype"]])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of memory that is not to be written to, which nobody does
                flat = torch.frombuffer(view[start + first : start + end], dtype=dtype)
            weights[name] = flat.reshape(about["shape"])
    return weights


def with_output_head(weights: "dict[str, torch.Tensor]", *, tied: bool) -> "dict[str, torch.Tensor]":
    """The weights with the output head spelled out if it is tied to the embeddings.

    A checkpoint of a model with tied embeddings need hold no output head, and a running engine that is given none keeps
    its old one, silently. Raises UserError if there is a head that differs from the embeddings.
    """
    if not tied:
        return weights
    (embeddings,) = [name for name in weights if name.endswith(EMBEDDINGS)]
    head = weights.get(OUTPUT_HEAD)
    if head is not None and not head.equal(weights[embeddings]):
        raise UserError("the weights have an output head of their own, but the model that the engine serves has none")
    return {**weights, OUTPUT_HEAD: weights[embeddings]}
