"""The team that plays a run on Ray: pools of vLLM engines write, Ray Train workers train."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from actors.metrics import RunMetrics
from actors.pool import EnginePool
from actors.train import fit
from actors.train_worker import DpoTask, SftTask, Task
from medcritical_ray.config import Config, SamplingConfig
from medcritical_ray.engines.fleet import ENGINES_START, Note, fleet_readings, unnoted
from medcritical_ray.engines.served import max_lora_rank
from medcritical_ray.game import AskedBlock, OnStep, Role, WrittenBlock
from medcritical_ray.store.mirror import mirror_of
from medcritical_ray.telling.metrics import BROADCAST_SECONDS, TOKENS, Metric, Reading


class RayTeam:
    """Engines start, all together, when one is first asked to serve. Those of the minimum live until the end; others
    come while work waits for them and go before a training, as its workers go after it.

    The corrector has engines of its own if the config says so, else the generator's play both roles. `note` is told of
    engines that start, and of every death, restart and retirement of one.
    """

    def __init__(self, config: Config, note: Note = unnoted) -> None:
        self._config = config
        self._note = note
        self._pools: dict[Role, EnginePool] = {}
        self._metrics = RunMetrics(config.run.name)

    @property
    def plays_apart(self) -> bool:
        return self._config.engines.separate_corrector > 0

    def serve(self, role: Role, version: int, policy_dir: Path) -> None:
        if not self._pools:
            self._start(version, policy_dir)
        pool = self._pools[self._players(role)]
        pool.tell(self._note)
        pool.wait_until_serving()
        if not pool.serves(version, policy_dir):
            started = time.monotonic()
            pool.broadcast(version, policy_dir)
            self._record(BROADCAST_SECONDS, time.monotonic() - started, role)
        self._show(role)

    def is_free(self, role: Role) -> bool:
        player = self._players(role)
        return player not in self._pools or not self._pools[player].is_at_work

    def write(
        self,
        role: Role,
        version: int,
        blocks: Iterable[AskedBlock | None],
        sampling: SamplingConfig,
        *,
        wants_help: Callable[[], bool] = lambda: False,
    ) -> Iterator[WrittenBlock | None]:
        pool = self._pools[self._players(role)]
        assert pool.version == version, f"{role} serves version {pool.version}, not {version}"
        others = [each for each in self._pools.values() if each is not pool]
        for each in others:
            each.tell(self._note)
        return self._counted(
            role,
            pool.map(
                blocks,
                sampling,
                watch=lambda: self._show(role),
                helper=lambda: others[0] if others and wants_help() else None,
            ),
        )

    def train_sft(self, start: Path, demonstrations: Path, out: Path, *, name: str, on_step: OnStep) -> dict[str, Any]:
        return self._train(SftTask(policy_dir=start, config=self._config.sft), demonstrations, out, name, on_step)

    def train_dpo(
        self, policy: Path, reference: Path, pairs: Path, out: Path, *, name: str, on_step: OnStep
    ) -> dict[str, Any]:
        task = DpoTask(policy_dir=policy, reference_dir=reference, config=self._config.dpo)
        return self._train(task, pairs, out, name, on_step)

    def for_run(self, config: Config, note: Note) -> "RayTeam":
        """A team for another run, whose engines are this one's. Only this one ends them."""
        team = RayTeam(config, note)
        team._pools = self._pools
        return team

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pool in self._pools.values():
            pool.close()

    def _train(self, task: Task, rows: Path, out: Path, name: str, on_step: OnStep) -> dict[str, Any]:
        """Engines above the minimum make room: they are idle while workers train."""
        for pool in self._pools.values():
            pool.shrink()
        run = self._config.run
        return fit(
            task,
            rows,
            out,
            self._config.trainers,
            name=f"{run.name}-{name}",
            seed=run.seed,
            on_step=on_step,
            mirror=mirror_of(self._config),
        )

    def _players(self, role: Role) -> Role:
        """The role whose pool plays `role`."""
        return role if self.plays_apart else "generator"

    def _counted(self, role: Role, written: Iterable[WrittenBlock | None]) -> Iterator[WrittenBlock | None]:
        for answer in written:
            if answer:
                self._record(TOKENS, sum(each.num_tokens for each in answer[1]), role)
            yield answer

    def _record(self, metric: Metric, value: float, role: Role) -> None:
        self._metrics.record([Reading(name=metric.name, value=value, tags={"role": role})])

    def _show(self, role: Role) -> None:
        """The engines of each role, or of the one that is played by all."""
        for player, pool in self._pools.items():
            self._metrics.record(fleet_readings(player if self.plays_apart else role, pool.states))

    def _start(self, version: int, policy_dir: Path) -> None:
        engines = self._config.engines
        sizes: dict[Role, int] = {"generator": engines.num_engines, "corrector": engines.separate_corrector}
        for role, num_engines in sizes.items():
            if num_engines:
                self._note(ENGINES_START, role=role, num_engines=engines.least_of(num_engines))
                self._pools[role] = EnginePool(
                    engines,
                    version,
                    policy_dir,
                    name=f"medcritical/{self._config.run.name}/{role}",
                    num_engines=num_engines,
                    max_lora_rank=max_lora_rank(self._config),
                    mirror=mirror_of(self._config),
                )
