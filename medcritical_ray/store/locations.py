"""Where runs lie: in a directory, or below a URI of an object store, of which every machine keeps working copies."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from medcritical_ray.errors import UserError

_SECRET = re.compile(r"secret|key|token|password|credential|signature", re.IGNORECASE)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def is_uri(directory: str) -> bool:
    """Whether a directory is named by a URI of an object store; a file's URI is a path in other words.

    One slash is enough, since that is what a path makes of two.
    """
    return bool(_URI.match(directory)) and not directory.startswith("file:")


def uri_problems(directory: str) -> Iterator[str]:
    """What a URI must not hold. None of it shows the value: it goes into records and logs."""
    try:
        parts = urlsplit(directory)
        password = parts.password or (parts.scheme == "s3" and parts.username)
    except ValueError:
        yield "must be a path or a URI such as s3://bucket/runs"
        return
    if is_uri(directory) and (password or any(_SECRET.search(name) for name in parse_qs(parts.query))):
        yield "must hold no user, password or key: those go into the environment of every node"


def check_outlives_job(what: str, directory: str) -> None:
    """Raises UserError for a path within a submitted job's working directory, which is gone with the job."""
    if not is_uri(directory) and not directory.startswith("file:") and not Path(directory).is_absolute():
        raise UserError(
            f"{what} = {directory!r} is gone with the job, which runs in a directory of its own: must be an absolute "
            "path that all nodes share, or the URI of an object store"
        )


def runs_root(directory: str) -> Path:
    """The absolute directory that holds those of runs. For a URI it is that of their working copies, in the user's
    cache ($XDG_CACHE_HOME, else ~/.cache)."""
    if not is_uri(directory):
        return Path(unquote(urlsplit(directory).path) if directory.startswith("file:") else directory).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (cache / "medcritical" / hashlib.sha256(directory.encode()).hexdigest()[:12]).absolute()


def join_uri(uri: str, *names: str) -> str:
    """The URI of what lies below another, whose query stays."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names])))
