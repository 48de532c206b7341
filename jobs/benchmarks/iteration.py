"""A self-iteration, beside the same work with engines that are restarted from a checkpoint phase by phase."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import clinic
from jobs.benchmarks.figures import Figure, Goal, in_turn

if TYPE_CHECKING:
    from actors.team import RayTeam
    from medcritical_ray.config import Config
    from medcritical_ray.game import Game
    from medcritical_ray.run.policies import Policy

GOAL = Goal(
    name="the demo's first self-iteration",
    unit="s",
    peer="engines restarted from a checkpoint for each phase, as Online-RLHF does",
    target=5.0,
    ratio="peer / ours",
)


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """From the policy of stage 1, which is trained once before, to the evaluation of the next one. Ours begins with
    engines that serve the policy, as they do after the iteration before."""
    with _after_stage_one(scratch) as (game, policy):
        sides = _Sides(game, policy, scratch)
        ours, peer = in_turn(repeats, sides.ours, sides.peer)
    return [Figure(goal=GOAL, ours_each=ours, peer_each=peer)]


@contextmanager
def _after_stage_one(scratch: Path) -> "Iterator[tuple[Game, Policy]]":
    from actors.team import RayTeam
    from jobs.self_play import make_game, opened_to_play
    from medcritical_ray.stage_one import stage_one

    config = clinic.demo_config(run={"directory": str(scratch), "name": "benchmark"})
    with opened_to_play(config, resume=False, command="medcritical benchmark") as run, RayTeam(config) as team:
        game = make_game(config, run, team, _Phases(), "medcritical benchmark")
        yield game, stage_one(game)


class _Sides:
    """Each measure plays in a copy of the run."""

    def __init__(self, game: "Game", policy: "Policy", scratch: Path) -> None:
        self.game, self.policy, self.scratch = game, policy, scratch
        self.num_played = 0

    def ours(self) -> float:
        self.game.team.serve("generator", self.policy.version, self.policy.path)
        return self._play(self.game)

    def peer(self) -> float:
        team = _RestartedTeam(self.game.config, f"restarted-{self.num_played}")
        try:
            return self._play(replace(self.game, team=team, progress=_Phases(team.restart)))
        finally:
            team.restart()

    def _play(self, game: "Game") -> float:
        from medcritical_ray.run.directory import RunDirectory
        from medcritical_ray.self_play import self_iteration

        self.num_played += 1
        copy = self.scratch / f"played-{self.num_played}"
        shutil.copytree(game.run.path, copy)
        game = replace(game, run=RunDirectory(copy))
        started = time.perf_counter()
        self_iteration(game, 1, self.policy)
        return time.perf_counter() - started


class _RestartedTeam:
    """A team whose engines come and go."""

    def __init__(self, config: "Config", name: str) -> None:
        self._config, self._name = config, name
        self._num_starts = 0
        self._team: RayTeam | None = None

    def restart(self) -> None:
        """Ends the engines; those that are asked to serve next start from the policy on disk."""
        if self._team:
            self._team.__exit__(None, None, None)
        self._team = None

    def __getattr__(self, name: str) -> Any:
        from actors.team import RayTeam

        if self._team is None:
            self._num_starts += 1
            run = self._config.run.model_copy(update={"name": f"{self._name}-{self._num_starts}"})
            self._team = RayTeam(self._config.model_copy(update={"run": run}))
        return getattr(self._team, name)


class _Phases:
    """Who is told how far it is; `before` is called before each phase that has engines of its own in scripts, and
    before the training. Engines that take the new policy evaluate it, too."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before

    def start_phase(self, iteration: int, phase: str) -> None:
        if phase in ("generate", "correct", "train", "broadcast"):
            self._before()

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        pass

    def advance(self, label: str, done: int, total: int) -> None:
        pass

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        pass
