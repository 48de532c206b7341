"""What to do about an engine, given how it last answered."""

from typing import Literal

EngineStatus = Literal["serving", "stale", "dead", "silent", "failed", "never_started"]
"""How an engine last answered: it is `serving`; it serves another version than the current one; its process died; it
did not answer in time; it raised an error that is not the user's; or its first start raised an error."""


def next_step(status: EngineStatus, *, restarts_left: int) -> Literal["keep", "restart", "give_up"]:
    """Whether to keep an engine, replace it by a fresh one, or end the run.

    An engine whose first start fails would fail again: its settings or its model are wrong. Whatever else happens to an
    engine may be its machine's doing, so a fresh one gets the work, as often as the run allows.
    """
    if status == "serving":
        return "keep"
    if status == "never_started" or restarts_left < 1:
        return "give_up"
    return "restart"
