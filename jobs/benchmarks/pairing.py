"""Rounds of up to a million questions through grading and pairing: how long, and in how much memory.

`python -m jobs.benchmarks.pairing DIR NUM` is one round, in a process whose memory is its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import clinic
from jobs.benchmarks.figures import Figure, Goal

if TYPE_CHECKING:
    from medcritical_ray.config import SamplingConfig
    from medcritical_ray.game import Game
    from medcritical_ray.rollouts import Completion, Request

SIZES = (10_000, 100_000, 1_000_000)
NUM_ATTEMPTS = 8
BLOCK_SIZE = 200
"""The default of `questions.block_size`."""
NUM_TEXTS = 10_000
"""Questions that differ; larger rounds have them again, in other blocks."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """Each round once, since a million questions take a quarter of an hour; the smallest as often as is asked for."""
    rounds = {num: [_round(scratch, num) for _ in range(repeats if num == min(SIZES) else 1)] for num in SIZES}
    smallest = rounds[min(SIZES)]
    figures = []
    for num in reversed(SIZES[1:]):
        goal = Goal(
            name=f"grading and pairing, {num:,} questions x {NUM_ATTEMPTS}",
            unit="s per 1,000",
            peer=f"{min(SIZES):,} of them",
            target=1.1,
            reach="at most",
        )
        ours = [each["s_per_1000"] for each in rounds[num]]
        figures.append(Figure(goal=goal, ours_each=ours, peer_each=[each["s_per_1000"] for each in smallest]))
    largest = [each["peak_mib"] for each in rounds[max(SIZES)]]
    memory = Goal(name="peak memory of that process", unit="MiB", target=2048, reach="at most")
    growth = Goal(name="the same", unit="MiB", peer=f"with {min(SIZES):,} questions", target=1.1, reach="at most")
    return [
        *figures,
        Figure(goal=memory, ours_each=largest),
        Figure(goal=growth, ours_each=largest, peer_each=[each["peak_mib"] for each in smallest]),
    ]


def _round(scratch: Path, num_questions: int) -> dict[str, float]:
    directory = scratch / f"round-{num_questions}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "jobs.benchmarks.pairing", str(directory), str(num_questions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def play_round(directory: Path, num_questions: int) -> dict[str, float]:
    """The seconds per 1,000 questions, without those of making the texts, and the process's peak memory so far."""
    from medcritical_ray.self_play import attempts_by, correct, corrections_by, pair

    game, policy = _game(directory, num_questions)
    started = time.perf_counter()
    with game.run:
        attempts = attempts_by(game, 1, policy)
        generated = game.once(1, "generate", attempts.finish)
        corrections = corrections_by(game, 1, policy, attempts)
        game.once(1, "correct", lambda: correct(game, 1, corrections), ["generate"])
        paired = game.once(1, "pair", lambda: pair(game, 1), ["generate", "correct"])
    seconds = time.perf_counter() - started
    assert generated["num_trajectories"] == num_questions * NUM_ATTEMPTS
    assert sum(paired["pairs"].values()) > 0
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s_per_1000": 1000 * seconds / num_questions, "peak_mib": peak_mib}


def _game(directory: Path, num_questions: int) -> "tuple[Game, Any]":
    """A game whose engines have their texts ready, and whose pairs are of the student's own attempts alone."""
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.clinic.teacher import ClinicTeacher
    from medcritical_ray.clinic.world import load_world
    from medcritical_ray.game import Game
    from medcritical_ray.question_set import QuestionSet
    from medcritical_ray.questions import write_questions
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.run.policies import PolicyStore
    from medcritical_ray.run.record import record_of
    from medcritical_ray.telling.audience import Listener

    config = clinic.demo_config(
        questions={"num_train": num_questions, "block_size": BLOCK_SIZE},
        generate={"num_questions": None, "num_attempts": NUM_ATTEMPTS},
        pairs={"shares": {"own": 1.0}, "agree_on": "key", "previous_share": 0.0, "max_pairs": 20_000},
    )
    run = RunDirectory.create(directory, record_of(config), resume_command="")
    asked = clinic.questions(min(num_questions, NUM_TEXTS))
    file = run.path / "questions.parquet"
    write_questions(file, asked)
    teacher = ClinicTeacher(load_world())
    few = QuestionSet(file, 0, 1, BLOCK_SIZE)
    game = Game(
        config=config,
        run=run,
        team=_ReadyTexts(asked, teacher),  # type: ignore[arg-type]  # it trains nothing
        teacher=teacher,
        reviewer=teacher,
        progress=Listener(),
        student=base_student_dir(),
        train=QuestionSet(file, 0, num_questions, BLOCK_SIZE),
        dev=few,
        test=few,
        resume_command="",
    )
    policy = PolicyStore(run.policies).publish(0, base_student_dir(), parent=None, metrics={})
    return game, policy


class _ReadyTexts:
    """Engines that take no time: a right text or a wrong one, as the request's seed has it."""

    def __init__(self, questions: Iterable[Any], teacher: Any) -> None:
        import random

        from medcritical_ray.prompts import solve_prompt
        from medcritical_ray.rollouts import Completion

        rng = random.Random(0)
        self._texts: dict[str, list[Completion]] = {
            solve_prompt(question.unkeyed()): [
                Completion(text=text or "", finished=True, num_tokens=80)
                for text in (teacher.template(question.unkeyed()), teacher.mistake(question.unkeyed(), rng))
            ]
            for question in questions
        }

    def serve(self, role: str, version: int, policy_dir: Path) -> None:
        pass

    def write(
        self,
        role: str,
        version: int,
        blocks: "Iterable[tuple[int, list[Request]]]",
        sampling: "SamplingConfig",
        **_: Any,
    ) -> "Iterator[tuple[int, list[Completion]]]":
        for block, requests in blocks:
            yield block, [self._texts[request.prompt][request.seed % 2] for request in requests]


if __name__ == "__main__":
    print(json.dumps(play_round(Path(sys.argv[1]), int(sys.argv[2]))))
