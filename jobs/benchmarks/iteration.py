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
from medcritical_ray.telling.audience import Listener

if TYPE_CHECKING:
    from actors.team import RayTeam
    from medcritical_ray.config import Config
    from medcritical_ray.game import Game, Team
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
    with after_stage_one(scratch) as (game, policy):
        first = FirstIteration(game, policy, scratch)
        ours, peer = in_turn(repeats, lambda: first.seconds(game.team), lambda: _seconds_with_restarts(first))
    return [Figure(goal=GOAL, ours_each=ours, peer_each=peer)]


def _seconds_with_restarts(first: "FirstIteration") -> float:
    team: Any = _RestartedTeam(first.game.config, f"restarted-{first.num_played}")
    try:
        return first.seconds_from_anywhere(team, before_phases=team.restart)
    finally:
        team.restart()


@contextmanager
def after_stage_one(scratch: Path, **parts: dict[str, Any]) -> "Iterator[tuple[Game, Policy]]":
    """A run of the demo, with some keys of its config's parts changed, that has come as far as version 0."""
    from actors.team import RayTeam
    from jobs.self_play import make_game, opened_to_play
    from medcritical_ray.stage_one import stage_one

    config = clinic.demo_config(run={"directory": str(scratch), "name": "benchmark"}, **parts)
    with opened_to_play(config, resume=False, command="medcritical benchmark") as run, RayTeam(config) as team:
        game = make_game(config, run, team, _Phases(), "medcritical benchmark")
        yield game, stage_one(game)


class FirstIteration:
    """Is played again and again, each time in a copy of the run."""

    def __init__(self, game: "Game", policy: "Policy", scratch: Path) -> None:
        self.game, self.policy, self.scratch = game, policy, scratch
        self.num_played = 0

    def seconds(self, team: "Team") -> float:
        """Of an iteration by a team whose engines serve the policy when it begins."""
        for role in ("generator", "corrector"):
            team.serve(role, self.policy.version, self.policy.path)
        return self.seconds_from_anywhere(team)

    def seconds_from_anywhere(self, team: "Team", before_phases: Callable[[], None] = lambda: None) -> float:
        """Whatever the engines serve, if there are any."""
        from medcritical_ray.run.directory import RunDirectory
        from medcritical_ray.self_play import self_iteration

        self.num_played += 1
        copy = self.scratch / f"played-{self.num_played}"
        shutil.copytree(self.game.run.path, copy)
        game = replace(self.game, run=RunDirectory(copy), team=team, progress=_Phases(before_phases))
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


class _Phases(Listener):
    """Calls `before` before each phase that has engines of its own in scripts, and before the training. Engines that
    take the new policy evaluate it, too."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before

    def start_phase(self, iteration: int, phase: str) -> None:
        if phase in ("generate", "correct", "train", "broadcast"):
            self._before()
