"""Full weights on their way from a policy's safetensors files into an engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcritical_ray.errors import UserError
from medcritical_ray.model_files import weight_files

if TYPE_CHECKING:
    import torch

Blob = bytes | np.ndarray
"""The contents of one safetensors file: bytes, or an array of uint8 as the object store hands it out, read-only."""

EMBEDDINGS = "embed_tokens.weight"
OUTPUT_HEAD = "lm_head.weight"


def read_blobs(directory: Path) -> list[np.ndarray]:
    """The contents of a policy's safetensors files, each an array of uint8."""
    return [np.fromfile(path, dtype=np.uint8) for path in weight_files(directory)]


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
    """The tensors of all files by name, on the CPU and in the files' own types."""
    from safetensors.torch import load

    weights: dict[str, torch.Tensor] = {}
    for blob in blobs:
        weights |= load(blob if isinstance(blob, bytes) else blob.tobytes())
    return weights


def with_output_head(weights: "dict[str, torch.Tensor]", *, tied: bool) -> "dict[str, torch.Tensor]":
    """The weights with the output head spelled out if it is tied to the embeddings.

    A checkpoint of a model with tied embeddings need hold no output head, and a running engine that is given none keeps
    its old one, silently. Raises UserError if there is a head that differs from the embeddings.
    """
    if not tied:
        return weights
    (embeddings,) = [name for name in weights if name.endswith(EMBEDDINGS)]
    head = weights.get(OUTPUT_HEAD, weights[embeddings])
    if not head.equal(weights[embeddings]):
        raise UserError("the weights have an output head of their own, but the model that the engine serves has none")
    return {**weights, OUTPUT_HEAD: head}
