"""Names that become paths, and those of policies. What comes from elsewhere (a store, a manifest, a model's index, a
client) may be anything."""

import re

_VERSION = re.compile(r"v?(\d{1,9})", re.ASCII)


def stays_within(name: str) -> bool:
    """Whether a file of this name, which may lie in directories, is below the directory that it is put into."""
    return "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def policy_name(version: int) -> str:
    """Of a policy's directory, and of the model as which it is served: v0003."""
    return f"v{version:04d}"


def version_of(name: str) -> int | None:
    """The version whose policy has this very name; None if no version's has."""
    version = typed_version(name)
    return version if version is not None and policy_name(version) == name else None


def typed_version(text: str) -> int | None:
    """A version as people type it: v0003, v3 or 3. None for anything else."""
    match = _VERSION.fullmatch(text)
    return int(match[1]) if match else None
