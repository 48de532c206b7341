"""A team without engines or workers, and a small run for it to play: all in memory and files, in a moment."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from medcritical_ray.clinic.exam import make_questions
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config import Config, SamplingConfig
from medcritical_ray.files import atomic_directory
from medcritical_ray.game import AskedBlock, Game, OnStep, Role, WrittenBlock
from medcritical_ray.prompts import question_text
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import record_of
from medcritical_ray.teaching.configured import make_truth
from medcritical_ray.teaching.reviews import Reviewer
from medcritical_ray.telling.audience import Listener
from medcritical_ray.trace import format_answer

RESUME_COMMAND = "medcritical self-play --config small.toml --resume"
TOKENS_OF_VERSION = 1000
"""A completion of version 2 says that it took 1002 tokens, so that a test can tell who wrote it."""

SMALL: dict[str, Any] = {
    "run": {"name": "small", "num_iterations": 2},
    "questions": {"num_train": 16, "num_dev": 16, "num_test": 8, "block_size": 6},
    "teacher": {"num_questions": 6},
    "sft": {"method": "full", "own_attempts": 2},
    "generate": {"num_questions": 8, "num_attempts": 2},
    "correct": {"num_corrections": 3, "checked_share": 0.5},
    "pairs": {"shares": {"correction": 0.5, "own": 0.5}, "min_edit_distance_chars": 1},
    "dpo": {"method": "full", "batch_size": 2},
    "evaluate": {"num_passes": 2},
}
SKILLS = {"sft-draft": 0.3, "sft-train": 0.5, "dpo-001": 0.7, "dpo-002": 0.8}
"""By the name of a training: the chance that the policy which comes of it solves a question or repairs an attempt."""


def small_config(**parts: dict[str, Any]) -> Config:
    """The small run's config, with some keys of its parts changed."""
    return Config.model_validate(SMALL | {name: SMALL.get(name, {}) | part for name, part in parts.items()})


class FakeTeam:
    """Writes what the clinic's teacher would, or a mistake, as its policy's skill has it; trains by copying a policy.

    Both roles are played by the same engine, which serves one version at a time, unless each has its own.

    It says "the machine died" in place of its call number `fails_at`, counted over all that it is asked to do.
    """

    def __init__(
        self,
        questions: Iterable[Question],
        skills: dict[str, float],
        *,
        plays_apart: bool = False,
        fails_at: int | None = None,
    ) -> None:
        self.plays_apart = plays_apart
        self._questions = {question_text(question.unkeyed()): question for question in questions}
        self._teacher = ClinicTeacher(load_world())
        self._skills = skills
        self._fails_at = fails_at
        self._num_calls = 0
        self._serving: dict[Role, tuple[int, float]] = {}
        """By the role whose engine it is: the version, and the skill that it has."""
        self.served: list[tuple[Role, int]] = []
        self.asked: list[tuple[Role, int]] = []
        """Role and number of each block that was to be written, in their order."""
        self.helped: list[Role] = []
        """Whose engine had the help of the other one, each time that it wrote."""
        self._at_work: set[Role] = set()
        self.trained: list[tuple[str, str, str]] = []
        """Name of the DPO training, names of the directories of policy and reference."""

    def serve(self, role: Role, version: int, policy_dir: Path) -> None:
        player = self._player(role)
        if player in self._serving and self._serving[player][0] == version:
            return
        assert self.is_free(role), f"the {player}'s engine is at work"
        self._count_call()
        self.served.append((role, version))
        self._serving[player] = (version, json.loads((policy_dir / "config.json").read_text())["skill"])

    def is_free(self, role: Role) -> bool:
        return self._player(role) not in self._at_work

    def write(
        self,
        role: Role,
        version: int,
        blocks: Iterable[AskedBlock | None],
        sampling: SamplingConfig,
        *,
        wants_help: Callable[[], bool],
    ) -> Iterator[WrittenBlock | None]:
        """The other role's engine helps by being at work; it is told that there is nothing left a look after the last
        block, and the writer has ended a look after that."""
        player = self._player(role)
        serving, skill = self._serving[player]
        assert serving == version, f"{role} serves version {serving}, not {version}"
        with self._working(player):
            for asked in self._with_help(blocks, player, wants_help):
                if not asked:
                    yield None
                    continue
                block, requests = asked
                self._count_call()
                self.asked.append((role, block))
                texts = [self._text(request, skill) for request in requests]
                yield block, [Completion(text=t, finished=True, num_tokens=TOKENS_OF_VERSION + version) for t in texts]
            yield None

    def _with_help(
        self, blocks: Iterable[AskedBlock | None], player: Role, wants_help: Callable[[], bool]
    ) -> Iterator[AskedBlock | None]:
        helper: Role = "corrector" if player == "generator" else "generator"
        same = self._serving.get(helper) == self._serving[player]
        if not (self.plays_apart and same and wants_help() and self.is_free(helper)):
            yield from blocks
            return
        self.helped.append(player)
        with self._working(helper):
            yield from blocks
            yield None

    @contextmanager
    def _working(self, player: Role) -> Iterator[None]:
        assert player not in self._at_work, f"the {player}'s engine is at work already"
        self._at_work.add(player)
        try:
            yield
        finally:
            self._at_work.discard(player)

    def train_sft(self, start: Path, demonstrations: Path, out: Path, *, name: str, on_step: OnStep) -> dict[str, Any]:
        return self._train(start, out, name, on_step)

    def train_dpo(
        self, policy: Path, reference: Path, pairs: Path, out: Path, *, name: str, on_step: OnStep
    ) -> dict[str, Any]:
        self.trained.append((name, policy.name, reference.name))
        return self._train(policy, out, name, on_step)

    def _train(self, start: Path, out: Path, name: str, on_step: OnStep) -> dict[str, Any]:
        self._count_call()
        on_step({"step": 1.0, "num_steps": 1.0, "loss": 0.5})
        shutil.rmtree(out, ignore_errors=True)
        with atomic_directory(out) as directory:
            write_policy(directory, self._skills[name], start)
        return {"loss": 0.5}

    def _text(self, request: Request, skill: float) -> str:
        question_part, _, attempt = request.prompt.rpartition("\n")[0].partition("\nAttempt:\n")
        question = self._questions[question_part]
        rng = random.Random(request.seed)
        if rng.random() >= skill:
            return self._mistake(question, attempt, rng)
        unkeyed = question.unkeyed()
        if attempt:
            return self._teacher.correction(unkeyed, attempt) or ""
        # A thought of its own, so that a right attempt is not the same text as a repair.
        return (self._teacher.template(unkeyed) or "").replace("Thought: ", "Thought: well, ", 1)

    def _mistake(self, question: Question, attempt: str, rng: random.Random) -> str:
        """A wrong correction if there is an attempt, else a wrong attempt."""
        option = rng.choice([option for option in question.options if option.letter != question.key])
        answer_line = format_answer([option.text], option.letter)
        if attempt:
            return f"Check: the answer is wrong: it is another.\n{answer_line}"
        mistake = self._teacher.mistake(question.unkeyed(), rng) or "Answer: none (A)"
        return "\n".join([*mistake.splitlines()[:-1], answer_line])

    def _player(self, role: Role) -> Role:
        return role if self.plays_apart else "generator"

    def _count_call(self) -> None:
        self._num_calls += 1
        if self._num_calls == self._fails_at:
            raise RuntimeError("the machine died")


class FakeProgress(Listener):
    """Notes the phases that start, and is killed, as a process may be, when the given number of them has started."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.phases: list[tuple[int, str]] = []
        self._killed_at = killed_at

    def start_phase(self, iteration: int, phase: str) -> None:
        self.phases.append((iteration, phase))
        if len(self.phases) == self._killed_at:
            raise KeyboardInterrupt


def write_policy(directory: Path, skill: float, start: Path | None = None) -> None:
    """A policy in three small files, those of `start` with another skill if it is given."""
    if start:
        shutil.copytree(
            start, directory, ignore=shutil.ignore_patterns("manifest.json", "COMPLETE"), dirs_exist_ok=True
        )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"skill": skill}))
    (directory / "tokenizer.json").write_text("{}")
    # A safetensors file without tensors: the length of its header in eight bytes, and the header.
    (directory / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


class SmallRun:
    """A small run on disk, opened and closed as by one process after the other."""

    def __init__(
        self, root: Path, config: Config, skills: dict[str, float] = SKILLS, reviewer: Reviewer | None = None
    ) -> None:
        self.config = config
        self._reviewer = reviewer
        self.path = root / config.run.name
        self._skills = skills
        self._student = root / "student"
        write_policy(self._student, skill=0.1)
        self._questions = {
            split: list(make_questions(load_world(), split, count, seed=0, difficulty=3))
            for split, count in (
                ("train", config.questions.num_train),
                ("dev", config.questions.num_dev),
                ("test", config.questions.num_test),
            )
        }

    def open(self, *, fails_at: int | None = None, killed_at: int | None = None) -> Game:
        """The game as a new process would have it; whoever opens it closes its run."""
        run = self._open_directory()
        files = {split: run.path / "data" / f"{split}.parquet" for split in self._questions}
        for split, questions in self._questions.items():
            if not files[split].exists():
                write_questions(files[split], questions)
        train, dev, test = (
            QuestionSet.whole(files[s], self.config.questions.block_size) for s in ("train", "dev", "test")
        )
        teacher = ClinicTeacher(load_world())
        all_questions = [question for questions in self._questions.values() for question in questions]
        return Game(
            config=self.config,
            run=run,
            team=FakeTeam(
                all_questions,
                self._skills,
                plays_apart=self.config.engines.separate_corrector > 0,
                fails_at=fails_at,
            ),
            teacher=teacher,
            reviewer=self._reviewer or teacher,
            progress=FakeProgress(killed_at),
            student=self._student,
            train=train,
            dev=dev,
            test=test,
            resume_command=RESUME_COMMAND,
            right_line_by_line=make_truth(self.config, train),
        )

    def open_to_read(self) -> RunDirectory:
        return RunDirectory(self.path)

    def _open_directory(self) -> RunDirectory:
        begin = RunDirectory.resume if (self.path / "run.json").exists() else RunDirectory.create
        return begin(self.path, record_of(self.config), resume_command=RESUME_COMMAND)


@contextmanager
def copies_in_place_of_links() -> Iterator[None]:
    """A flip in one of the two names of a file is one in both: of a training and the policy that came of it."""
    with patch.object(os, "link", side_effect=OSError):
        yield
