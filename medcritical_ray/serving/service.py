"""The policies of one run at one engine: which there are, which is the latest, and what a request gets of them."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.engines.served import ServedPolicy, served_policy
from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore, verify_policy
from medcritical_ray.run.state import adopted_version
from medcritical_ray.serving.correcting import self_correct
from medcritical_ray.serving.engine import ServingEngine
from medcritical_ray.serving.log import NAME
from medcritical_ray.serving.model_ids import LATEST, SELF_CORRECT, ModelId, model_name, read_model_id
from medcritical_ray.serving.refusals import Refusal, Refused, overloaded, unavailable, unknown_model
from medcritical_ray.serving.turns import Turns

WATCH_S = 0.1
logger = logging.getLogger(NAME)


class Service:
    """Starts with the policy that the run has adopted; `start` it in the event loop that asks it, and `close` it.

    `on_death` is called at once when the engine is dead, or does not answer any more.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        start_engine: Callable[..., ServingEngine] = ServingEngine,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self._on_death = on_death
        self._run = run
        self._store = PolicyStore(run.policies)
        self._policies: dict[int, ServedPolicy] = {}
        self._created: dict[int, int] = {}
        self._num_requests = 0
        self._unusable: set[int] = set()
        self._scratch = tempfile.TemporaryDirectory(prefix="medcritical-serve-")
        self._latest = self._policy(adopted_version(run))
        verify_policy(self._store.path_of(self._latest.version))
        self._engine = start_engine(self._latest, config, Path(self._scratch.name))
        self._turns = Turns(self._latest.model_dir, self._engine.take, config.serve.turn_s)

    async def start(self) -> None:
        """Waits until requests can be answered, and follows the run from then on."""
        await self._engine.open()
        await self._engine.add_adapter(self._latest)
        self._tasks = [asyncio.create_task(work()) for work in (self._follow, self._probe, self._watch)]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._engine.close()
        self._scratch.cleanup()

    def check_health(self) -> None:
        """Raises what has ended the following of the run, or RuntimeError if the engine is dead."""
        for task in self._tasks:
            if task.done():
                task.result()
        if not self.is_alive:
            raise RuntimeError("the engine is dead")

    @property
    def is_alive(self) -> bool:
        return self._engine.is_alive

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken now."""
        return self.is_alive and self._num_requests < self.config.serve.max_requests

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request. Raises Refused if there are too many already, or if the engine is dead."""
        if not self.is_alive:
            raise Refused(unavailable())
        if not self.is_ready:
            raise Refused(overloaded(self.config.serve.max_requests))
        self._num_requests += 1
        try:
            yield
        finally:
            self._num_requests -= 1

    @property
    def has_chat(self) -> bool:
        return self._engine.has_chat_template

    def models(self) -> list[dict[str, Any]]:
        """All published policies that can be read, and the latest; then those with their answers corrected, so that
        clients which offer what is listed offer these, too. Reads the disk."""
        cards = []
        for name, version in self._names().items():
            try:
                cards.append(self._card(name, version))
            except (UserError, OSError) as error:
                logger.error("%s is not listed: %s", name, error)
        corrected = [{**card, "id": f"{card['id']}{SELF_CORRECT}"} for card in cards if self.has_chat]
        return [*cards, *corrected]

    def card(self, name: str) -> dict[str, Any]:
        """One of them. Raises Refused if there is no such policy, or if it cannot be read. Reads the disk."""
        model = self.model(name)
        try:
            return self._card(name, self._latest.version if model.version is None else model.version)
        except (UserError, OSError) as error:
            logger.error("%s", error)
            raise Refused(_unusable(model)) from None

    def model(self, name: str) -> ModelId:
        """Raises Refused if there is no such policy, or if it cannot be served."""
        model = read_model_id(name)
        if model is None or (model.version is not None and not self._store.is_complete(model.version)):
            is_pruned = model is not None and model.version is not None and self._store.is_pruned(model.version)
            known = list(self._names())
            raise Refused(unknown_model(name, known, is_pruned=is_pruned, has_corrected=self.has_chat))
        if model.version in self._unusable:
            raise Refused(_unusable(model))
        return model

    @asynccontextmanager
    async def turn(self, model: ModelId) -> AsyncIterator[ServedPolicy]:
        """The policy that is asked; it stays in the engine for as long as the block lasts. Raises Refused."""
        try:
            named = None if model.version is None else await asyncio.to_thread(self._policy, model.version)
        except (UserError, OSError) as error:  # a file system that is away may come back
            logger.error("%s", error)
            raise Refused(_unusable(model)) from None
        async with AsyncExitStack() as stack:
            try:
                policy = await stack.enter_async_context(self._turns.at(lambda: named or self._latest))
            except MedCriticalError as error:
                logger.error("%s", error)
                if named:
                    self._unusable.add(named.version)
                raise Refused(_unusable(model)) from None
            yield policy

    async def answer(self, policy: ServedPolicy, request: Any, *, chat: bool) -> Any:
        """A response of the API, or an iterator over the events of one. Raises Refused."""
        return await (self._engine.chat if chat else self._engine.complete)(policy, request)

    async def self_correct(self, policy: ServedPolicy, request: Any) -> dict[str, Any]:
        """The response after one round of self-correction, whose texts are as long as in the run. Raises Refused."""
        return await self_correct(
            partial(self._engine.chat, policy),
            request,
            answer_tokens=self.config.generate.sampling.max_tokens,
            correction_tokens=self.config.correct.sampling.max_tokens,
        )

    async def _follow(self) -> None:
        """Takes over each policy that the run adopts; one that the engine refuses is left out, and the log says why."""
        while True:
            await asyncio.sleep(self.config.serve.poll_s)
            try:
                version = await asyncio.to_thread(adopted_version, self._run)
                if version in {self._latest.version, *self._unusable}:
                    continue
                policy = await asyncio.to_thread(self._policy, version)
            except (UserError, OSError) as error:  # a file system that is away may come back
                logger.error("what the run has adopted cannot be read: %s", error)
                continue
            await self._take_over(policy)

    async def _probe(self) -> None:
        """Finds out by the engine's silence that it is stuck."""
        while True:
            await asyncio.sleep(self.config.serve.poll_s)
            await self._engine.probe()

    async def _watch(self) -> None:
        while self._engine.is_alive:
            await asyncio.sleep(WATCH_S)
        logger.error("the engine is dead")
        self._on_death()

    async def _take_over(self, policy: ServedPolicy) -> None:
        try:
            async with self._turns.at(lambda: policy, at_once=True):
                await self._engine.add_adapter(policy)
                self._latest = policy
        except MedCriticalError as error:
            self._unusable.add(policy.version)
            logger.error("%s is not taken over: %s", model_name(policy.version), error)
        else:
            logger.info("latest is %s now", model_name(policy.version))

    def _policy(self, version: int) -> ServedPolicy:
        """Full weights are compared with their hashes when the engine reads them, an adapter's here."""
        if version not in self._policies:
            policy = served_policy(version, self._store.get(version).path)
            if policy.adapter_dir:
                verify_policy(policy.adapter_dir)
            self._policies[version] = policy
        return self._policies[version]

    def _names(self) -> dict[str, int]:
        """Name -> version of all that can be asked."""
        return {**{model_name(version): version for version in self._store.versions()}, LATEST: self._latest.version}

    def _card(self, name: str, version: int) -> dict[str, Any]:
        if version not in self._created:
            self._created[version] = int(self._store.manifest(version).created.timestamp())
        return {
            "id": name,
            "object": "model",
            "created": self._created[version],
            "owned_by": "medcritical",
            "root": model_name(version),
            "max_model_len": self.config.engines.max_model_len,
        }


def _unusable(model: ModelId) -> Refusal:
    name = LATEST if model.version is None else model_name(model.version)
    return Refusal(status=500, message=f"{name} cannot be loaded: the server's log says why.", param="model")
