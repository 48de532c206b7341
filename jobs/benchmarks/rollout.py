"""A rollout through the pool, beside one call of a bare vLLM with the same settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import clinic
from jobs.benchmarks.figures import Figure, Goal, in_turn
from jobs.benchmarks.rollouts import play_attempts

if TYPE_CHECKING:
    from actors.pool import EnginePool
    from medcritical_ray.config import Config
    from medcritical_ray.question_set import QuestionSet

GOAL = Goal(
    name="rollout through the pool, graded and kept as parquet",
    unit="tokens/s",
    peer="one bare vllm.LLM.generate",
    target=0.95,
)
WITHOUT_SEEDS = Goal(name="the same", unit="tokens/s", peer="the same vLLM, with the seed of each request")
NUM_QUESTIONS = 300
"""As an iteration of the demo has them, four attempts at each, in two blocks."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """One engine each, side by side: the pool's is asked over Ray; the other one's time is taken within its process."""
    from actors.cluster import connected
    from actors.pool import EnginePool
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.questions import write_questions

    write_questions(scratch / "questions.parquet", clinic.questions(NUM_QUESTIONS))
    with connected(clinic.demo_config().cluster, scratch) as cluster:
        engines: dict[str, object] = {"num_engines": 1, "num_gpus": float(cluster.num_gpus >= 2)}
        config = clinic.demo_config(engines=engines)
        questions = QuestionSet.whole(scratch / "questions.parquet", config.questions.block_size)
        with EnginePool(config.engines, 0, base_student_dir(), name="rollout") as pool:
            sides = _Sides(pool, questions, config, scratch)
            pool.wait_until_serving()
            ours, peer, seeded = in_turn(repeats, sides.pool_rate, sides.bare_rate, sides.seeded_rate)
    return [
        Figure(goal=GOAL, ours_each=ours, peer_each=peer),
        Figure(goal=WITHOUT_SEEDS, ours_each=ours, peer_each=seeded),
    ]


class _Sides:
    def __init__(self, pool: "EnginePool", questions: "QuestionSet", config: "Config", scratch: Path) -> None:
        import ray

        from jobs.benchmarks.bare import BareEngine
        from medcritical_ray.clinic.base import base_student_dir
        from medcritical_ray.prompts import solve_prompt

        self.pool, self.questions, self.config, self.scratch = pool, questions, config, scratch
        self.prompts = [
            solve_prompt(question.unkeyed()) for question in questions for _ in range(config.generate.num_attempts)
        ]
        actor_class: Any = BareEngine  # its decorator hides its options from the type checker
        self.bare = actor_class.options(num_cpus=config.engines.num_cpus, num_gpus=config.engines.num_gpus).remote()
        start = self.bare.start.remote(base_student_dir(), config.engines, config.generate.sampling)
        ray.get(start, timeout=config.engines.start_timeout_s)
        self.num_played = 0

    def pool_rate(self) -> float:
        from medcritical_ray.clinic.base import base_student_dir

        self.num_played += 1
        self.pool.broadcast(self.num_played, base_student_dir())  # as before each rollout of a run: no prefix is kept
        directory = self.scratch / f"attempts-{self.num_played}"
        counts = play_attempts(self.pool, self.questions, self.config, directory)
        return counts["num_tokens"] / counts["seconds"]

    def bare_rate(self) -> float:
        return self._bare_rate(seeded=False)

    def seeded_rate(self) -> float:
        return self._bare_rate(seeded=True)

    def _bare_rate(self, *, seeded: bool) -> float:
        import ray

        num_tokens, seconds = ray.get(
            self.bare.generate.remote(self.prompts, seeded=seeded), timeout=self.config.engines.request_timeout_s
        )
        return num_tokens / seconds
