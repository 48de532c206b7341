"""Policies on disk: numbered, immutable directories that count only once their completion marker is there.

policies/v0003/
  model.safetensors …   weights or a LoRA adapter, configuration, tokenizer
  manifest.json         version, parent, kind, base, SHA-256 of every file, metrics, time
  COMPLETE              written last; without it the directory does not count, and the next publish replaces it
  PRUNED                in a policy whose files were removed, by rule: the manifest is left of it, see pruning.py
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medcritical_ray.errors import UserError
from medcritical_ray.files import atomic_directory, link_or_copy, read_json, sha256_of, write_json
from medcritical_ray.model_files import ADAPTER_CONFIG, PICKLES
from medcritical_ray.names import policy_name, stays_within, version_of
from medcritical_ray.run.files import PRUNED

Kind = Literal["full", "adapter"]
MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
_NEEDED = {"full": "config.json", "adapter": ADAPTER_CONFIG}


class Manifest(BaseModel):
    """What a policy is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=0)
    parent: int | None = Field(description="the version that it was trained from; None for the first")
    kind: Kind
    base: str | None = Field(description="for an adapter: the directory of the model below it, see Policy.base_path")
    files: dict[str, str] = Field(description="path inside the directory -> SHA-256, as hexadecimal digits")
    metrics: dict[str, Any]
    created: datetime

    @field_validator("files")
    @classmethod
    def _files_lie_within(cls, files: dict[str, str]) -> dict[str, str]:
        if strange := [name for name in files if not stays_within(name)]:
            raise ValueError(f"{strange[0]!r} is no file of this directory")
        return files


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """One complete policy."""

    version: int
    path: Path
    manifest: Manifest

    @property
    def base_path(self) -> Path | None:
        """The model that an adapter sits on; a relative `base`, such as "v0000", is a policy beside it."""
        return self.path.parent / self.manifest.base if self.manifest.base else None


class PolicyStore:
    """The policies of one run. One process publishes at a time; any number may read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(
        self,
        version: int,
        source_dir: Path,
        *,
        parent: int | None,
        metrics: dict[str, Any],
        kind: Kind = "full",
        base: str | None = None,
    ) -> Policy:
        """Takes the files of `source_dir`, which must stay as they are, into a new policy: linked where the file system
        can, else copied.

        Publishing the same files as the same version again changes nothing. Raises UserError if that version is
        complete with other files, if the weights are missing or pickled, or if an adapter's base is missing;
        StorageFailed if the disk does not take it. Then there is no such policy.
        """
        _check_source(source_dir, kind)
        self._check_base(kind, base)
        if self.is_complete(version):
            return self._same_or_error(version, source_dir)
        self._discard_unfinished(version)
        with atomic_directory(self.path_of(version)) as directory:
            for name in _content(source_dir):
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source_dir / name, directory / name)
            manifest = Manifest(
                version=version,
                parent=parent,
                kind=kind,
                base=base,
                files=_hashes(directory),
                metrics=metrics,
                created=datetime.now(UTC),
            )
            write_json(directory / MANIFEST, manifest)
        write_json(self.path_of(version) / COMPLETE, {"version": version})
        return self.get(version)

    def get(self, version: int) -> Policy:
        """Raises UserError if that version is not there, not complete, pruned, or has no readable manifest."""
        path = self.path_of(version)
        check_not_pruned(path)
        if not self.is_complete(version):
            known = ", ".join(self.path_of(version).name for version in self.versions()) or "none"
            raise UserError(f"{path} is no complete policy; complete versions in {self.root}: {known}")
        return Policy(version=version, path=path, manifest=read_manifest(path))

    def verify(self, version: int) -> None:
        """Reads every file of a policy. Raises UserError, naming the first that is missing, damaged or added."""
        verify_policy(self.get(version).path)

    def manifest(self, version: int) -> Manifest:
        """That of a version which may be pruned. Raises UserError if it is missing or damaged."""
        return read_manifest(self.path_of(version))

    def versions(self) -> list[int]:
        """The complete versions, in order."""
        return [version for version in self._on_disk() if self.is_complete(version)]

    def published(self) -> list[int]:
        """All versions that were ever complete, in order, pruned ones among them."""
        return [version for version in self._on_disk() if self.is_complete(version) or self.is_pruned(version)]

    def is_complete(self, version: int) -> bool:
        return (self.path_of(version) / COMPLETE).is_file() and not self.is_pruned(version)

    def is_pruned(self, version: int) -> bool:
        return (self.path_of(version) / PRUNED).is_file()

    def path_of(self, version: int) -> Path:
        return self.root / policy_name(version)

    def _on_disk(self) -> list[int]:
        names = (path.name for path in self.root.iterdir()) if self.root.is_dir() else iter(())
        return sorted(version for name in names if (version := version_of(name)) is not None)

    def _check_base(self, kind: Kind, base: str | None) -> None:
        if kind == "adapter" and base is None:
            raise UserError("an adapter is published with the model that it sits on as its base")
        if base is not None and not (self.root / base).resolve().is_dir():
            raise UserError(f"{self.root / base}, named as the base of a policy, is no directory")

    def _same_or_error(self, version: int, source_dir: Path) -> Policy:
        policy = self.get(version)
        if _hashes(source_dir) != policy.manifest.files:
            raise UserError(f"{policy.path} is already published with other files than those of {source_dir}")
        return policy

    def _discard_unfinished(self, version: int) -> None:
        """Removes what an interrupted publish of this version has left."""
        if self.path_of(version).exists():
            shutil.rmtree(self.path_of(version))


def read_manifest(path: Path) -> Manifest:
    """The manifest of a policy's directory. Raises UserError if it is missing or damaged."""
    try:
        return Manifest.model_validate(read_json(path / MANIFEST))
    except ValidationError as error:
        fields = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
        raise UserError(f"{path / MANIFEST} is no manifest of a policy: see {fields}") from None


def check_not_pruned(path: Path) -> None:
    """Raises UserError if a policy's directory has no more than its manifest, by the rule of run.keep_policies."""
    if (path / PRUNED).is_file():
        raise UserError(f"{path} was pruned: run.keep_policies left no more of it than {MANIFEST}")


def verify_policy(path: Path) -> None:
    """Compares every file of a policy's directory with its manifest: see PolicyStore.verify."""
    published, found = read_manifest(path).files, _hashes(path)
    for name in sorted(published.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{path / name} is missing: the manifest lists it")
        if name not in published:
            raise UserError(f"{path / name} was not published: the manifest does not list it")
        if published[name] != found[name]:
            raise UserError(f"{path / name} is damaged: its SHA-256 is not that of the manifest")


def _check_source(source_dir: Path, kind: Kind) -> None:
    if not source_dir.is_dir():
        raise UserError(f"{source_dir} is no directory of a model")
    files = _content(source_dir)
    pickles = sorted(name for name in files if Path(name).suffix in PICKLES)
    if pickles:
        raise UserError(
            f"{source_dir} holds pickled files, which are never loaded: {', '.join(pickles)}; save as safetensors"
        )
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{source_dir} holds no weights: no *.safetensors")
    if _NEEDED[kind] not in files:
        raise UserError(f"{source_dir} is no {kind} model: it has no {_NEEDED[kind]}")


def _content(directory: Path) -> list[str]:
    """Paths inside a policy's directory, without the files that publishing adds."""
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return [name for name in names if Path(name).name not in (MANIFEST, COMPLETE, PRUNED)]


def _hashes(directory: Path) -> dict[str, str]:
    return {name: sha256_of(directory / name) for name in sorted(_content(directory))}
