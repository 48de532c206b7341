"""The health of an engine: a state machine that knows no clock, no process and no Ray.

| state      | the engine                                         | next                                      |
|------------|----------------------------------------------------|-------------------------------------------|
| absent     | is not there: not wanted, or it got no machine     | start: restarting                         |
| restarting | starts with the current policy                     | confirmed: healthy; late: absent          |
| stale      | was asked to serve another version                 | confirmed: healthy                        |
| healthy    | serves                                             | quiet: suspect; update: stale             |
| suspect    | serves, but makes no progress: it gets no new work | progress, excused: healthy; update: stale |
| dead       | failed and is gone                                 | start: restarting                         |
| retired    | is dead, and was restarted as often as it may be   |                                           |

Of an engine that is there (restarting, stale, healthy, suspect), `end` makes an absent one, and every failure a dead or
a retired one. It comes to serve by confirming the version asked for, and in no other way.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from medcritical_ray.config import EnginesConfig

State = Literal["absent", "restarting", "stale", "healthy", "suspect", "dead", "retired"]
Failure = Literal["process died", "error", "start failed", "wrong version", "no progress", "no answer"]
"""Its process ended; it raised an error that is not the user's, or did so in its start; it serves another version than
the one asked for; it does not move; it takes too long."""
Event = Literal["start", "confirmed", "late", "update", "progress", "quiet", "excused", "end", Failure]
"""`late`: it does not serve in time after its start, perhaps for want of a machine; `quiet`: it has not moved for half
of the time that it may; `excused`: nobody waits any more for what it had in work."""

STATES: tuple[State, ...] = get_args(State)

SERVING: tuple[State, ...] = ("healthy", "suspect")

_FAILURES: dict[str, Failure] = {failure: failure for failure in get_args(Failure)}
_NEXT: dict[State, dict[Event, State]] = {
    "absent": {"start": "restarting"},
    "restarting": {"confirmed": "healthy", "late": "absent", "end": "absent"},
    "stale": {"confirmed": "healthy", "end": "absent"},
    "healthy": {"quiet": "suspect", "progress": "healthy", "excused": "healthy", "update": "stale", "end": "absent"},
    "suspect": {"progress": "healthy", "excused": "healthy", "update": "stale", "end": "absent"},
    "dead": {"start": "restarting"},
    "retired": {},
}
_ANSWERS: dict[State, tuple[Event, str]] = {
    "restarting": ("late", "start_timeout_s"),
    "stale": ("no answer", "update_timeout_s"),
    "healthy": ("no answer", "request_timeout_s"),
    "suspect": ("no answer", "request_timeout_s"),
}
"""What it is if an answer takes longer than a key of the config allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """`failure` and `cause` say how the engine died last, until it serves again."""

    state: State = "absent"
    num_deaths: int = 0
    has_served: bool = False
    failure: Failure | None = None
    cause: str = ""

    @property
    def is_there(self) -> bool:
        return "end" in _NEXT[self.state]

    @property
    def is_serving(self) -> bool:
        return self.state in SERVING

    @property
    def num_restarts(self) -> int:
        """Times that the engine was started again after it died."""
        return self.num_deaths - (self.state in ("dead", "retired"))

    def after(self, event: Event, cause: str = "", *, max_restarts: int) -> "Health":
        """What an event makes of it; `cause` belongs to failures. An event that a state does not have is a KeyError."""
        failure = _FAILURES.get(event)
        if failure and self.is_there:
            state: State = "dead" if self.num_deaths < max_restarts else "retired"
            return replace(self, state=state, num_deaths=self.num_deaths + 1, failure=failure, cause=cause)
        state = _NEXT[self.state][event]
        if event == "confirmed":
            return Health(state=state, num_deaths=self.num_deaths, has_served=True)
        return replace(self, state=state)

    def __str__(self) -> str:
        return f"{self.state} (death {self.num_deaths}: {self.failure}, {self.cause})" if self.failure else self.state


def overdue(state: State, *, unanswered_s: float, still_s: float, limits: EnginesConfig) -> tuple[Event, str] | None:
    """What it means that an engine which is there, and is asked for something, has not answered for so long and has not
    moved for so long; with the limit that is over. None as long as it may go on."""
    event, key = _ANSWERS[state]
    if unanswered_s >= getattr(limits, key):
        return event, f"for {getattr(limits, key):g} s (engines.{key})"
    if state in SERVING and still_s >= limits.progress_timeout_s:
        return "no progress", f"for {limits.progress_timeout_s:g} s (engines.progress_timeout_s)"
    if state == "healthy" and still_s >= limits.progress_timeout_s / 2:
        return "quiet", ""
    return None
