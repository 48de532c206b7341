"""What an engine needs to serve a policy version: which weights, and room for adapters of which rank."""

import socket
from dataclasses import dataclass
from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.files import sha256_of
from medcritical_ray.model_files import check_adapter, is_adapter, weight_files
from medcritical_ray.run.policies import MANIFEST, Policy, check_not_pruned, read_manifest

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks of LoRA adapters that vLLM has kernels for."""


class StaleVersion(MedCriticalError, RuntimeError):
    """An engine does not serve, or is not about to serve, the version that it is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedPolicy:
    """A policy version as engines see it: the weights in `model_dir`, and the LoRA adapter in `adapter_dir` if any.

    `hashes` has the weight files and their SHA-256, as far as the policy is published and its manifest tells.
    """

    version: int
    model_dir: Path
    adapter_dir: Path | None = None
    hashes: tuple[tuple[Path, str], ...] = ()


def served_policy(version: int, directory: Path) -> ServedPolicy:
    """The policy in a directory: a model's, or a published adapter's, whose manifest names the model below it.

    Raises UserError if the directory, or that of the model below, holds no model with safetensors weights.
    """
    directory = directory.resolve()
    check_not_pruned(directory)
    if not is_adapter(directory):
        return ServedPolicy(version=version, model_dir=_checked(directory), hashes=_hashes(directory))
    base = Policy(version=version, path=directory, manifest=read_manifest(directory)).base_path
    if base is None:
        raise UserError(f"{directory} is an adapter whose manifest names no base")
    check_adapter(directory)
    model_dir = _checked(base.resolve())
    hashes = (*_hashes(model_dir), *_hashes(directory))
    return ServedPolicy(version=version, model_dir=model_dir, adapter_dir=directory, hashes=hashes)


def check_weights(policy: ServedPolicy, below: Path = Path("/")) -> None:
    """Reads the weight files of a published policy, or those below a directory. Raises StaleVersion if one is not, on
    this machine, what the one who asks for that version knows it to be."""
    for path, sha256 in policy.hashes:
        if path.is_relative_to(below) and (not path.exists() or sha256_of(path) != sha256):
            raise StaleVersion(f"{path} on {socket.gethostname()} is not that of policy version {policy.version}")


def max_lora_rank(config: Config) -> int | None:
    """Of the adapters that a run trains; None if it trains all weights."""
    ranks = [part.lora.rank for part in (config.sft, config.dpo) if part.method == "lora"]
    return max(ranks, default=None)


def served_rank(rank: int) -> int:
    """The smallest rank that engines serve and that holds adapters of `rank`. Raises UserError if there is none."""
    ranks = [served for served in SERVED_RANKS if served >= rank]
    if not ranks:
        raise UserError(f"LoRA rank {rank} is more than the engines serve: at most {max(SERVED_RANKS)}")
    return min(ranks)


def _checked(model_dir: Path) -> Path:
    if not (model_dir / "config.json").exists():
        raise UserError(f"{model_dir} is no directory of a model: it has no config.json")
    weight_files(model_dir)
    return model_dir


def _hashes(directory: Path) -> tuple[tuple[Path, str], ...]:
    if not (directory / MANIFEST).exists():
        return ()
    files = read_manifest(directory).files
    return tuple((directory / name, sha256) for name, sha256 in sorted(files.items()) if name.endswith(".safetensors"))
