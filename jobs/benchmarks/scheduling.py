"""How well the driver keeps engines busy, by engines of fixed speed: what is left of their speed is its doing."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import clinic
from jobs.benchmarks.figures import Figure, Goal, in_turn
from jobs.benchmarks.rollouts import play_attempts

if TYPE_CHECKING:
    from medcritical_ray.config import Config

GOAL = Goal(name="rollout with 64 simulated engines", unit="attempts/s", peer="all of their fixed speed", target=0.97)
NUM_QUESTIONS = 2000
"""That differ; the largest phase has them five times and more."""
OTHER_SIZES = (1, 4, 16, 256)
BLOCKS_PER_ENGINE = 5
QUESTIONS_PER_BLOCK, ATTEMPTS = 8, 4
"""3.2 seconds of an engine, far less than in any run: the driver has the more to do."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """Attempts per second in the phase `generate`, parquet and grading included, and the driver's own computing."""
    from actors.cluster import connected
    from jobs.benchmarks.simulated import TEXTS_PER_S
    from medcritical_ray.config import ClusterConfig
    from medcritical_ray.questions import write_questions

    write_questions(scratch / "questions.parquet", clinic.questions(NUM_QUESTIONS))
    with connected(ClusterConfig(object_store_mib=300), scratch):
        host = _host()
        runs = {num: _Run(num, host, scratch) for num in (64, *OTHER_SIZES)}
        measures: list[Callable[[], float]] = [partial(run.attempts_per_s) for run in runs.values()]
        rates = dict(zip(runs, in_turn(repeats, *measures), strict=True))
    figures = []
    for num in runs:
        name = GOAL.name if num == 64 else f"the same with {num}"
        goal = Goal(name=name, unit=GOAL.unit, peer=GOAL.peer, target=GOAL.target if num == 64 else None)
        figures.append(Figure(goal=goal, ours_each=rates[num], peer_each=[num * TEXTS_PER_S] * repeats))
    for num, run in runs.items():
        goal = Goal(name=f"computing of the driver for 1,000 attempts, {num} engines", unit="s")
        figures.append(Figure(goal=goal, ours_each=run.driver_s))
    return figures


class _Run:
    def __init__(self, num_engines: int, host: Any, scratch: Path) -> None:
        from jobs.benchmarks.simulated import SimulatedSeat
        from medcritical_ray.question_set import QuestionSet

        self.num_engines, self.scratch = num_engines, scratch
        num_questions = num_engines * BLOCKS_PER_ENGINE * QUESTIONS_PER_BLOCK
        self.questions = QuestionSet(scratch / "questions.parquet", 0, num_questions, QUESTIONS_PER_BLOCK)
        self.config: Config = clinic.demo_config(
            engines={"num_engines": num_engines}, generate={"num_attempts": ATTEMPTS}
        )
        self.seat = type("Seat", (SimulatedSeat,), {"host": host})
        self.driver_s: list[float] = []

    def attempts_per_s(self) -> float:
        from actors.pool import EnginePool
        from medcritical_ray.clinic.base import base_student_dir

        number = len(self.driver_s)
        with EnginePool(
            self.config.engines, 0, base_student_dir(), name=f"simulated-{self.num_engines}-{number}", seat=self.seat
        ) as pool:
            pool.wait_until_serving()
            before = time.process_time()
            directory = self.scratch / f"attempts-{self.num_engines}-{number}"
            counts = play_attempts(pool, self.questions, self.config, directory)
            computed_s = time.process_time() - before
        self.driver_s.append(1000 * computed_s / counts["num_trajectories"])
        return counts["num_trajectories"] / counts["seconds"]


def _host() -> Any:
    from jobs.benchmarks.simulated import SimulatedEngines

    actor_class: Any = SimulatedEngines  # its decorator hides its options from the type checker
    return actor_class.remote(NUM_QUESTIONS)
