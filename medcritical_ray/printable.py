"""Text of whatever origin, fit for a terminal: nothing in it moves the cursor, changes colours or hides the rest."""

import json
import re

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and line feed, marks that turn the direction of writing, other line breaks, and halves
of surrogate pairs, which no stream can write."""


def printable(text: str) -> str:
    """The text with such characters as JSON escapes them, so that what was JSON still is."""
    return _UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], text)
