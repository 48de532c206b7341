"""What to do about an engine, given how it last answered."""

from typing import Literal

EngineStatus = Literal["stale", "dead", "silent", "failed", "never_started"]
"""Why an engine cannot go on: it serves another version than the current one; its process died; it
did not answer in time; it raised an error that is not the user's; or its first start raised an error."""


def next_step(status: EngineStatus, *, restarts_left: int) -> Literal["restart", "give_up"]:
    """Whether to replace an engine by a fresh one, or to end the run.

    An engine whose first start fails would fail again: its settings or its model are wrong. Whatever else happens to an
    engine may be its machine's doing, so a fresh one gets the work, as often as the run allows.
    """
    if status == "never_started" or restarts_left < 1:
        return "give_up"
    return "restart"


def num_engines_wanted(num_blocks: int, *, per_engine: int, least: int, most: int) -> int:
    """As many engines as the blocks that are in work or wait would keep busy, within bounds."""
    return max(least, min(most, -(-num_blocks // per_engine)))
