"""Engines that write at a fixed speed, many of them in one process: 256 real ones would not fit a small machine."""

import asyncio
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import ray

from actors.seat import Seat
from jobs.benchmarks import clinic
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.rollouts import Completion

TEXTS_PER_S = 10.0
"""Of each engine: 4,000 tokens per second, in attempts of 400, are what a 7B student writes on one GPU or so."""


@ray.remote(num_cpus=0, max_concurrency=10_000)  # type: ignore[call-overload]  # no stub
class SimulatedEngines:
    """Answers to the calls of an EngineActor, with the engine's name before their arguments. It knows the answers to so
    many of the clinic's questions."""

    def __init__(self, num_questions: int) -> None:
        teacher, asked = ClinicTeacher(load_world()), clinic.questions(num_questions)
        self._texts = {solve_prompt(each.unkeyed()): teacher.template(each.unkeyed()) or "" for each in asked}
        self._free_at: dict[str, float] = {}
        self._num_written = 0

    async def start(self, name: str, policy: Any, config: Any, max_lora_rank: int | None) -> int:
        return policy.version

    async def generate(self, name: str, requests: list[Any], sampling: Any, version: int) -> list[Completion]:
        """An engine writes one block after the other, and all texts of a block at the same time."""
        now = time.monotonic()
        ends_at = max(now, self._free_at.get(name, now)) + len(requests) / TEXTS_PER_S
        self._free_at[name] = ends_at
        await asyncio.sleep(ends_at - now)
        self._num_written += len(requests)
        texts = [self._texts[request.prompt] for request in requests]
        return [Completion(text=text, finished=True, num_tokens=400) for text in texts]

    async def progress(self, name: str) -> int:
        return self._num_written


class SimulatedSeat(Seat):
    """A seat for one of the engines of `host`, which must be there first."""

    host: Any

    def _new_actor(self) -> Any:
        calls = ("start", "generate", "progress")
        return SimpleNamespace(
            **{call: SimpleNamespace(remote=partial(getattr(self.host, call).remote, self.name)) for call in calls}
        )

    def _kill_actor(self) -> None:
        pass
