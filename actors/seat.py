"""An engine's place in a pool: the actor that holds it now, what it was asked, and how it is."""

import time
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from actors.engine_actor import EngineActor
from actors.pulse import Pulse
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.fan_out import Block
from medcritical_ray.engines.fleet import EngineState
from medcritical_ray.engines.health import Event, Failure, Health, overdue
from medcritical_ray.engines.served import ServedPolicy, StaleVersion
from medcritical_ray.errors import UserError
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.store.mirror import Mirror

RequestBlock = Block[Any, list[Request]]
Answer = tuple[RequestBlock, list[Completion]]

_LOOKS_PER_LIMIT = 10


class Seat:
    """Starts, updates and asks one engine, and turns what comes of it into its health; none of it waits.

    `refs` are the calls to wait for: what makes it serve, else the blocks it works on.
    """

    def __init__(
        self, name: str, config: EnginesConfig, max_lora_rank: int | None, mirror: Mirror | None = None
    ) -> None:
        self.name = name
        self.health = Health()
        self._config = config
        self._max_lora_rank = max_lora_rank
        self._mirror = mirror
        self._actor: Any = None
        self._pulse: Pulse
        self._version = -1
        self._num_starts = 0
        self._change: Any = None
        self._in_flight: dict[Any, RequestBlock] = {}
        self._answered_at = self._moved_at = 0.0

    def start(self, policy: ServedPolicy) -> None:
        """Puts a fresh engine here. It loads the policy that is current now, and has no older one to serve."""
        self._tell("start")
        self._num_starts += 1
        self._actor = self._new_actor()
        self._pulse = Pulse(self._actor, self._config.progress_timeout_s / _LOOKS_PER_LIMIT)
        self._await_change(policy, self._actor.start.remote(policy, self._config, self._max_lora_rank))

    def update(self, policy: ServedPolicy, blobs: Sequence[Any]) -> None:
        """Has the engine take the policy; `blobs` are paths of its weight files, or references to what is in them."""
        self._tell("update")
        self._await_change(policy, self._actor.update.remote(policy, *blobs))

    def offer_channel(self, policy: ServedPolicy, blobs: Sequence[Any], num_receivers: int) -> Any:
        """A reference to the channel through which the engine would send the policy's weights to so many others."""
        return self._actor.offer_channel.remote(policy, num_receivers, *blobs)

    def send(self, policy: ServedPolicy, blobs: Sequence[Any], channel: Channel) -> None:
        """As `update`, but the engine first sends the weights through the channel that it has offered."""
        self._tell("update")
        self._await_change(policy, self._actor.send.remote(policy, channel, *blobs))

    def receive(self, policy: ServedPolicy, channel: Channel, receiver: int) -> None:
        """As `update`, but the engine takes the weights that another sends through the channel."""
        self._tell("update")
        self._await_change(policy, self._actor.receive.remote(policy, channel, receiver))

    def ask(self, block: RequestBlock, sampling: SamplingConfig) -> None:
        if not self._in_flight:
            self._restart_clocks()
        self._in_flight[self._actor.generate.remote(block.work, sampling, self._version)] = block

    def take(self, ended: set[Any]) -> list[Answer]:
        """The blocks that are answered, of the calls that have ended. Raises what is the user's to mend; any other
        error is a failure of the engine, which is then no longer there."""
        answers = []
        for ref in [ref for ref in self.refs if ref in ended]:
            try:
                answers += self._take(ref)
            except UserError as error:
                raise getattr(error, "cause", error) from None
            except (RayError, StaleVersion) as error:
                self._tell(self._failure(error), _told(error))
                break
        return answers

    def look(self) -> None:
        """Notices what the engine does not do in time."""
        if not self.health.is_there or not self.refs:
            return
        if self.health.is_serving and self._pulse.has_moved():
            self._moved_at = time.monotonic()
            self._tell("progress")
        now = time.monotonic()
        found = overdue(
            self.health.state,
            unanswered_s=now - self._answered_at,
            still_s=now - self._moved_at,
            limits=self._config,
        )
        if found:
            self._tell(*found)

    def end(self) -> list[RequestBlock]:
        """Ends the engine, if there is one, and returns the blocks that are lost with it.

        Ray kills a process that does not listen, such as a stopped one, after five seconds.
        """
        if self.health.is_there:
            self._tell("end")
        self._kill_actor()
        self._actor = self._change = None
        return self._forget()

    def excuse(self) -> None:
        """Nobody will take the answers to what the engine works on."""
        if self._forget():
            self._tell("excused")

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def is_new(self) -> bool:
        """Whether it starts for the first time."""
        return self.health.state == "restarting" and self._num_starts == 1

    @property
    def state(self) -> EngineState:
        return EngineState(
            name=self.name,
            version=self._version,
            health=self.health,
            num_requests=sum(len(block.work) for block in self._in_flight.values()),
        )

    @property
    def refs(self) -> list[Any]:
        return list(self._in_flight) if self._change is None else [self._change]

    def _new_actor(self) -> Any:
        actor_class: Any = EngineActor  # its decorator hides its options from the type checker
        return actor_class.options(
            name=f"{self.name}#{self._num_starts}",
            num_cpus=self._config.num_cpus,
            num_gpus=self._config.num_gpus,
            label_selector=self._config.labels,
        ).remote(self.name, self._mirror)

    def _kill_actor(self) -> None:
        ray.kill(self._actor)

    def _tell(self, event: Event, cause: str = "") -> None:
        if self._in_flight and cause:
            cause += f" (in work: {', '.join(str(block.key) for block in self._in_flight.values())})"
        self.health = self.health.after(event, cause, max_restarts=self._config.max_restarts)

    def _take(self, ref: Any) -> list[Answer]:
        answer = ray.get(ref)
        self._restart_clocks()
        if ref in self._in_flight:
            self._tell("progress")
            return [(self._in_flight.pop(ref), answer)]
        if answer != self._version:
            raise StaleVersion(f"it serves policy version {answer}, not {self._version}")
        self._change = None
        self._tell("confirmed")
        return []

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, StaleVersion):
            return "wrong version"
        if isinstance(error, RayActorError):
            return "process died"
        return "start failed" if self.health.state == "restarting" else "error"

    def _forget(self) -> list[RequestBlock]:
        lost = list(self._in_flight.values())
        self._in_flight.clear()
        return lost

    def _await_change(self, policy: ServedPolicy, ref: Any) -> None:
        self._version, self._change = policy.version, ref
        self._restart_clocks()

    def _restart_clocks(self) -> None:
        self._answered_at = self._moved_at = time.monotonic()


def _told(error: Exception) -> str:
    """What happened, in one line: the error that the engine raised, or what Ray says last of its process."""
    if isinstance(error, RayActorError):
        return shorten(str(error).strip().splitlines()[-1], width=200)
    cause = getattr(error, "cause", None) or error
    return shorten(f"{type(cause).__name__}: {cause}", width=400)
