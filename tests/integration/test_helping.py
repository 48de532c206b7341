"""Real engines of one role help those of the other: what is written is the same, whoever writes it and whoever dies."""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import ray

from actors.team import RayTeam
from jobs.benchmarks import clinic
from medcritical_ray.asked import attempts_at
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config, EnginesConfig, SamplingConfig
from medcritical_ray.game import BASE_VERSION, AskedBlock, Role, Session, WrittenBlock
from medcritical_ray.play import Play, Player
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Trajectory
from medcritical_ray.run.tables import iter_parts
from medcritical_ray.telling.audience import Listener

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Watched(RayTeam):
    """Remembers whose engines wrote each block, and kills the corrector's engine when it has written its first."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, self._remember)
        self.writers: dict[int, Role] = {}
        self.events: list[tuple[str, str]] = []

    def write(
        self, role: Role, version: int, blocks: Iterable[AskedBlock | None], sampling: SamplingConfig
    ) -> Iterator[WrittenBlock | None]:
        for answer in super().write(role, version, blocks, sampling):
            if answer:
                if role == "corrector" and role not in self.writers.values():
                    kill("medcritical/helped/corrector-0#1")
                self.writers[answer[0]] = role
            yield answer

    def _remember(self, event: str, **fields: str) -> None:
        self.events.append((event, fields.get("engine", "")))


def kill(actor_name: str) -> None:
    actor = ray.get_actor(actor_name).__ray_call__.options(concurrency_group="watch")  # beside what it works on
    os.kill(ray.get(actor.remote(lambda _: os.getpid())), signal.SIGKILL)


def attempts(team: RayTeam, config: Config, directory: Path) -> list[Trajectory]:
    """Two of the base policy at each of 48 questions, in twelve blocks."""
    write_questions(directory / "questions.parquet", clinic.questions(48))
    questions = QuestionSet.whole(directory / "questions.parquet", 4)
    session = Session(config=config, team=team, progress=Listener())
    player = Player("generator", BASE_VERSION, base_student_dir())
    turns = attempts_at(questions, iteration=1, num_attempts=2)
    Play(session, directory / "attempts", player, config.generate.sampling, questions.num_blocks, turns).finish()
    return list(iter_parts(directory / "attempts", Trajectory))


def test_what_engines_of_both_roles_write_is_the_same_though_one_of_them_dies(
    ray_cluster: None, engines_config: EnginesConfig, tmp_path: Path
):
    engines = {**engines_config.model_dump(), "max_model_len": 320}
    alone = clinic.demo_config(run={"name": "alone"}, engines=engines)
    helped = clinic.demo_config(run={"name": "helped"}, engines={**engines, "separate_corrector": 1})
    (tmp_path / "alone").mkdir()
    (tmp_path / "helped").mkdir()
    with RayTeam(alone) as team:
        by_one_engine = attempts(team, alone, tmp_path / "alone")
    with Watched(helped) as watched:
        by_two_engines = attempts(watched, helped, tmp_path / "helped")
    assert len(by_one_engine) == 96
    assert by_two_engines == by_one_engine
    assert sorted(watched.writers) == list(range(12))
    assert set(watched.writers.values()) == {"generator", "corrector"}
    assert ("engine died", "medcritical/helped/corrector-0") in watched.events
