"""What all parts of the config have in common."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

MAX_NUMBER = 10**15
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Part(BaseModel):
    """A frozen part of the config that refuses unknown keys, values of another type, text that no path, name or record
    can have, and numbers beyond all that is counted or measured here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_sane(cls, value: Any) -> Any:
        for each in _within(value):
            if isinstance(each, str) and _CONTROL.search(each):
                raise ValueError("must hold no control characters")
            if isinstance(each, int | float) and abs(each) > MAX_NUMBER:
                raise ValueError(f"must be at most {MAX_NUMBER:.0e}")
        return value


def _within(value: Any) -> Iterator[Any]:
    """A plain value, or those that a table or an array holds, keys among them. Those of a part are its own to check."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _within(each)
    else:
        yield value
