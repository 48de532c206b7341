"""Which kills a run gets, and when: a seed decides all of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from medcritical_ray.phases import TRAININGS

Target = Literal["driver", "engine", "train_worker", "node"]
Signal = Literal["SIGKILL", "SIGSTOP"]

SIGNALS: tuple[Signal, ...] = ("SIGKILL", "SIGSTOP")

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase of a run, and the seconds that it takes where nothing disturbs it."""

    iteration: int
    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """A signal to one of a kind of target, once a share of a phase's undisturbed seconds have passed in it.

    `position` is the phase's among the run's phases. `draw`, in [0, 1), picks one where there are several.
    """

    target: Target
    signal: Signal
    position: int
    share: float
    draw: float

    def pick(self, candidates: Sequence[Candidate]) -> Candidate:
        return candidates[int(self.draw * len(candidates))]


def schedule(seed: int, targets: Sequence[Target], phases: Sequence[Phase], num_kills: int) -> list[Kill]:
    """Kills in the order of their moments; of any `len(targets)` drawn in a row no two have the same target, and of
    twice as many no two are the same.

    Phases are drawn rather than seconds, so that short ones have their share; a training worker's are its own.
    """
    rng = random.Random(f"chaos {seed}")
    deck: list[tuple[Target, Signal]] = []
    kills = []
    for _ in range(num_kills):
        deck = deck or _shuffled(rng, targets)
        target, signal = deck.pop()
        kills.append(
            Kill(
                target=target,
                signal=signal,
                position=rng.choice(_positions(target, phases)),
                share=rng.random(),
                draw=rng.random(),
            )
        )
    return sorted(kills, key=lambda kill: (kill.position, kill.share))


def is_due(kill: Kill, phases: Sequence[Phase], position: int, seconds: float) -> bool:
    """Whether its moment has come, where a run has been in the phase at `position` for so many seconds."""
    if position != kill.position:
        return position > kill.position
    return seconds >= kill.share * phases[position].seconds


def _shuffled(rng: random.Random, targets: Sequence[Target]) -> list[tuple[Target, Signal]]:
    """Every target with every signal; taken from the end, each target comes once before any comes again."""
    orders = {target: rng.sample(SIGNALS, len(SIGNALS)) for target in targets}
    return [(target, orders[target][turn]) for turn in (0, 1) for target in rng.sample(targets, len(targets))]


def _positions(target: Target, phases: Sequence[Phase]) -> list[int]:
    return [n for n, phase in enumerate(phases) if target != "train_worker" or phase.name in TRAININGS]
