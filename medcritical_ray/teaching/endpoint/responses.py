"""Every response that was paid for, kept on disk by the hash of its request, and the ledger that they add up to."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcritical_ray.errors import UserError

_TABLE = """CREATE TABLE IF NOT EXISTS responses (
    request TEXT PRIMARY KEY, purpose TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, finished INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
) WITHOUT ROWID"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a model answered. `finished` means that it stopped by itself, and wrote something. Tokens are those that the
    endpoint counted."""

    model: str
    text: str
    finished: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Calls that were answered, their tokens, and the characters of the answers."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    written_chars: int


def request_hash(request: Mapping[str, Any]) -> str:
    """SHA-256 of all that decides a response: model, messages and sampling."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class ResponseStore:
    """The responses of one directory. Each is on disk, flushed, before `put` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(_TABLE)
            self._database.execute("SELECT purpose FROM responses LIMIT 0")
        except sqlite3.Error as error:
            raise UserError(f"{path} is no store of responses: {error}") from None

    def get(self, request: str) -> Response | None:
        """The response to the request with this hash, if there was one."""
        row = self._database.execute(
            "SELECT model, text, finished, prompt_tokens, completion_tokens FROM responses WHERE request = ?",
            (request,),
        ).fetchone()
        if row is None:
            return None
        model, text, finished, prompt_tokens, completion_tokens = row
        return Response(
            model=model,
            text=text,
            finished=bool(finished),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def put(self, request: str, purpose: str, response: Response) -> None:
        """Keeps what the request, made for the purpose, was answered with."""
        values: Sequence[Any] = (
            request,
            purpose,
            response.model,
            response.text,
            response.finished,
            response.prompt_tokens,
            response.completion_tokens,
        )
        self._database.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def usage(self, purpose: str | None = None) -> dict[str, Usage]:
        """All that was ever answered, by model: for one purpose, or for all."""
        rows = self._database.execute(
            "SELECT model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(LENGTH(text)) FROM responses "
            "WHERE ?1 IS NULL OR purpose = ?1 GROUP BY model",
            (purpose,),
        )
        return {
            model: Usage(calls=n, prompt_tokens=p, completion_tokens=c, written_chars=chars)
            for model, n, p, c, chars in rows
        }

    def close(self) -> None:
        self._database.close()
