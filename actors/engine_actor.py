"""One engine in a process of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from medcritical_ray.addresses import free_port
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.engine import Engine
from medcritical_ray.engines.served import ServedPolicy, check_weights
from medcritical_ray.engines.weights import Blob
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.store.mirror import Mirror
from medcritical_ray.store.node_copies import bring


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"watch": 1})  # type: ignore[call-overload]  # no stub
class EngineActor:
    """Forwards to an Engine. Ray never restarts it: a restarted engine would serve its first weights again.

    It does nothing until `start`, so that an error of the start reaches the caller as that error. Calls are carried out
    one after another, but for `progress`, which has a thread of its own. Ray's dashboard and logs show it by `name`.
    """

    def __init__(self, name: str, mirror: Mirror | None = None) -> None:
        self._name = name
        self._mirror = mirror
        self._engine: Engine

    def __repr__(self) -> str:
        return self._name

    def start(self, policy: ServedPolicy, config: EnginesConfig, max_lora_rank: int | None) -> int | None:
        """Starts the engine and returns the version that it serves, once it knows that the weights on this machine are
        that version's. Directories of a run that has a mirror are fetched where they are not."""
        bring(policy.model_dir, self._mirror)
        if policy.adapter_dir:
            bring(policy.adapter_dir, self._mirror)
        check_weights(policy)
        self._engine = Engine(policy.model_dir, policy.version, config, max_lora_rank)
        return self.update(policy) if policy.adapter_dir else self._engine.version

    def update(self, policy: ServedPolicy, *blobs: Blob) -> int | None:
        """Takes the weights in `blobs`, if any, then the policy's adapter, if any; returns the version served then."""
        with _ending_with_the_engine():
            if blobs:
                self._engine.update_weights(policy.version, blobs)
            if policy.adapter_dir:
                bring(policy.adapter_dir, self._mirror)
                check_weights(policy, below=policy.adapter_dir)
                self._engine.use_adapter(policy.version, policy.adapter_dir)
            return self._engine.version

    def offer_channel(self, policy: ServedPolicy, num_receivers: int, *blobs: Blob) -> Channel:
        """How this engine would send the weights in `blobs` to so many others, by way of this machine's address."""
        address = ray.util.get_node_ip_address()
        return self._engine.offer_channel(
            policy.version, blobs, num_receivers, address=address, port=free_port(address)
        )

    def send(self, policy: ServedPolicy, channel: Channel, *blobs: Blob) -> int | None:
        """Sends the weights in `blobs` through a channel that it has offered, and then takes them itself as `update`
        does, while the receivers load theirs."""
        with _ending_with_the_engine():
            self._engine.send_weights(policy.version, blobs, channel)
        return self.update(policy, *blobs)

    def receive(self, policy: ServedPolicy, channel: Channel, receiver: int) -> int | None:
        """Takes the weights that are sent through a channel, then what `update` takes beside weights."""
        with _ending_with_the_engine():
            self._engine.receive_weights(policy.version, channel, receiver)
        return self.update(policy)

    def generate(self, requests: list[Request], sampling: SamplingConfig, version: int) -> list[Completion]:
        with _ending_with_the_engine():
            return self._engine.generate(requests, sampling, version)

    @ray.method(concurrency_group="watch")
    def progress(self) -> int:
        """A number that grows while the engine, which must have started, writes."""
        return self._engine.num_steps


@contextmanager
def _ending_with_the_engine() -> Iterator[None]:
    """Ends the process once vLLM says that its engine is dead: else the actor would look alive for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError:
        os._exit(1)
