"""A self-iteration whose roles, with engines of their own, write at the same time and help each other, beside one
where they take turns.

Both play with the same two engines, one of each role, in blocks of 50 questions, so that there is something to hand on.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import iteration
from jobs.benchmarks.figures import Figure, in_turn

if TYPE_CHECKING:
    from medcritical_ray.game import Team

GOAL = replace(iteration.GOAL, peer="the same phases one after the other, each by its own role's engine", target=1.3)


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    engines = {"num_engines": 1, "separate_corrector": 1}
    with iteration.after_stage_one(scratch, engines=engines, questions={"block_size": 50}) as (game, policy):
        first = iteration.FirstIteration(game, policy, scratch)
        taking_turns: Any = _TakingTurns(game.team)
        ours, peer = in_turn(repeats, lambda: first.seconds(game.team), lambda: first.seconds(taking_turns))
    return [Figure(goal=GOAL, ours_each=ours, peer_each=peer)]


class _TakingTurns:
    """A team whose roles have engines of their own, and which has one of them write at a time, alone."""

    plays_apart = False

    def __init__(self, team: "Team") -> None:
        self._team = team

    def write(self, *asked: Any, wants_help: Any) -> Any:
        return self._team.write(*asked, wants_help=lambda: False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._team, name)
