"""An engine's place in a pool: the actor that holds it now, what it was asked, and until when it may take its time."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError

from actors.engine_actor import EngineActor
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engine import StaleVersion
from medcritical_ray.fan_out import Block
from medcritical_ray.fleet import EngineState
from medcritical_ray.mirror import Mirror
from medcritical_ray.recovery import EngineStatus
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.served import ServedPolicy

RequestBlock = Block[Any, list[Request]]


class Seat:
    """Starts, updates and asks one engine; none of it waits.

    A seat is `serving` once its engine has confirmed the current version. `refs` are the calls to wait for: what makes
    it serve, else the blocks it works on.
    """

    def __init__(
        self, name: str, config: EnginesConfig, max_lora_rank: int | None, mirror: Mirror | None = None
    ) -> None:
        self.name = name
        self._config = config
        self._max_lora_rank = max_lora_rank
        self._mirror = mirror
        self._actor: Any = None
        self._version = -1
        self._num_starts = 0
        self._has_served = False
        self._change: Any = None
        self._in_flight: dict[Any, RequestBlock] = {}
        self._waits_for: Literal["start", "update", "request"] = "start"
        self._since = 0.0

    def start(self, policy: ServedPolicy) -> None:
        """Puts a fresh engine here. It loads the policy that is current now, and has no older one to serve."""
        self._num_starts += 1
        actor_class: Any = EngineActor  # its decorator hides its options from the type checker
        self._actor = actor_class.options(
            name=f"{self.name}#{self._num_starts}",
            num_cpus=self._config.num_cpus,
            num_gpus=self._config.num_gpus,
            label_selector=self._config.labels,
        ).remote(self.name, self._mirror)
        self._await_change("start", policy, self._actor.start.remote(policy, self._config, self._max_lora_rank))

    def update(self, policy: ServedPolicy, blobs: Sequence[Any]) -> None:
        """Has the engine take the policy; `blobs` are references to the contents of its weight files."""
        self._await_change("update", policy, self._actor.update.remote(policy, *blobs))

    def ask(self, block: RequestBlock, sampling: SamplingConfig) -> None:
        if not self._in_flight:
            self._waits_for, self._since = "request", time.monotonic()
        self._in_flight[self._actor.generate.remote(block.work, sampling, self._version)] = block

    def take(self, ref: Any) -> tuple[RequestBlock, list[Completion]] | None:
        """The block that an answer is for and its completions; None if the answer confirms the version.

        Raises what the engine raised, StaleVersion if it confirms another version than the current one.
        """
        answer = ray.get(ref)
        self._since = time.monotonic()
        if ref in self._in_flight:
            return self._in_flight.pop(ref), answer
        if answer != self._version:
            raise StaleVersion(f"it serves policy version {answer}, not {self._version}")
        self._change, self._has_served = None, True
        return None

    def end(self) -> list[RequestBlock]:
        """Ends the engine and returns the blocks that are lost with it."""
        ray.kill(self._actor)
        self._actor = None
        return self.forget()

    def forget(self) -> list[RequestBlock]:
        """Returns the blocks that the engine works on, whose answers nobody will take."""
        lost = list(self._in_flight.values())
        self._in_flight.clear()
        return lost

    @property
    def is_serving(self) -> bool:
        return self._change is None

    @property
    def is_starting(self) -> bool:
        return self._change is not None and self._waits_for == "start"

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def state(self) -> EngineState:
        return EngineState(
            name=self.name,
            version=self._version,
            is_serving=self._actor is not None and self.is_serving,
            num_requests=sum(len(block.work) for block in self._in_flight.values()),
            num_replacements=max(0, self._num_starts - 1),
        )

    @property
    def keys_in_flight(self) -> str:
        """The keys of the blocks that the engine works on, for people to read."""
        return ", ".join(str(block.key) for block in self._in_flight.values()) or "none"

    @property
    def refs(self) -> list[Any]:
        return list(self._in_flight) if self.is_serving else [self._change]

    @property
    def limit(self) -> tuple[float, str]:
        """The seconds that the engine may take for what it does now, and the config key that says so."""
        key = f"{self._waits_for}_timeout_s"
        return getattr(self._config, key), f"engines.{key}"

    @property
    def seconds_left(self) -> float:
        return self._since + self.limit[0] - time.monotonic()

    def status_after(self, error: Exception) -> EngineStatus:
        """What an error of `take` says about the engine."""
        if not self._has_served:
            return "never_started"
        if isinstance(error, StaleVersion):
            return "stale"
        return "dead" if isinstance(error, RayActorError) else "failed"

    def _await_change(self, what: Literal["start", "update"], policy: ServedPolicy, ref: Any) -> None:
        self._version, self._change = policy.version, ref
        self._waits_for, self._since = what, time.monotonic()
