"""Who may ask: API keys, of which nothing is kept but their digests."""

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from medcritical_ray.errors import UserError


def new_key() -> str:
    """A key that nobody guesses: 256 random bits."""
    return f"mc-{secrets.token_urlsafe(32)}"


def read_keys(file: Path) -> list[bytes]:
    """The SHA-256 of each key in a file with one key per line. Raises UserError if there is no file or no key in it.

    No message holds any of what the file says.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"--api-key-file {file}: cannot be read: {error.strerror}") from None
    digests = [digest_of(line.strip()) for line in lines if line.strip()]
    if not digests:
        raise UserError(f"--api-key-file {file}: holds no key: must have one in each line")
    return digests


def digest_of(key: bytes) -> bytes:
    """All of a key that is kept."""
    return hashlib.sha256(key).digest()


def is_authorized(authorization: str, digests: Sequence[bytes]) -> bool:
    """Whether the header "Bearer KEY" has one of the keys. Takes as long for a wrong key as for a right one."""
    scheme, _, key = authorization.partition(" ")
    digest = digest_of(key.strip().encode("latin-1", "replace"))
    matches = [secrets.compare_digest(digest, known) for known in digests]
    return scheme.lower() == "bearer" and any(matches)
