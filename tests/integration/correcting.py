"""Stage 1's phase `correct` alone, on attempts that lie there already, with an endpoint as the teacher."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.game import DRAFT_VERSION, Game
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, Trajectory, lettered
from medcritical_ray.rollouts import Completion, attempt_turns
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.record import new_record
from medcritical_ray.run.tables import write_part
from medcritical_ray.stage_one import correct_mistakes
from medcritical_ray.teaching.endpoint.reviewer import EndpointReviewer
from medcritical_ray.teaching.teachers import TemplateTeacher

QUESTIONS = [
    Question(
        id=f"q{n}",
        source="test",
        stem=f"Which is it, number {n}?",
        options=lettered(["rest", "water", "aspirin"]),
        key="B",
    )
    for n in range(12)
]
RIGHT = "Thought: think.\nStep 1: it flows.\nStep 2: it is water.\nAnswer: water (B)"
WRONG = "Thought: think.\nStep 1: it flows.\nStep 2: it is rest.\nAnswer: rest (A)"
OTHER_WRONG = "Thought: think.\nStep 1: it flows.\nStep 2: it is aspirin.\nAnswer: aspirin (C)"
ATTEMPTS = [WRONG, RIGHT, WRONG, OTHER_WRONG]
"""Those of every question."""


class Quiet:
    """Nobody is told."""

    def start_phase(self, *_: Any) -> None: ...

    def finish_phase(self, *_: Any) -> None: ...

    def advance(self, *_: Any) -> None: ...


def open_run(path: Path, port: int, **endpoint: Any) -> Game:
    """The run as a process finds it after the phase before: twelve questions, and four attempts at each."""
    config = Config.model_validate(
        {
            "teacher": {
                "corrections": "endpoint",
                "endpoint": {
                    "base_url": f"http://127.0.0.1:{port}/v1",
                    "model": "big",
                    "timeout_s": 1.0,
                    "max_retries": 2,
                    "max_in_flight": 4,
                    **endpoint,
                },
                "num_questions": 4,
                "num_corrected": 12,
            },
            "sft": {"own_attempts": 4, "max_own_corrections": 1},
        }
    )
    record = new_record(config.model_dump(mode="json"), {"run": 0}, {"questions": "aa"})
    if (path / "run.json").exists():
        run = RunDirectory.resume(path, record, resume_command="resume it")
    else:
        run = RunDirectory.create(path, record, resume_command="resume it")
        write_questions(path / "train.parquet", QUESTIONS)
        turns = attempt_turns(QUESTIONS, iteration=STAGE_ONE, num_attempts=len(ATTEMPTS))
        texts = [Completion(text=text, finished=True, num_tokens=9) for text in ATTEMPTS] * len(QUESTIONS)
        attempts = [turn.trajectory(text, DRAFT_VERSION) for turn, text in zip(turns, texts, strict=True)]
        write_part(run.iteration(STAGE_ONE) / "attempts", 0, attempts, Trajectory)
    questions, teacher = QuestionSet.whole(path / "train.parquet", 200), TemplateTeacher({})
    return Game(
        config=config,
        run=run,
        team=SimpleNamespace(),
        teacher=teacher,
        reviewer=EndpointReviewer(config.teacher.endpoint, path / "responses.sqlite", lambda done, total: None),
        progress=Quiet(),
        student=path,
        train=questions,
        dev=questions,
        test=questions,
        resume_command="resume it",
    )


def correct(path: Path, port: int, **endpoint: Any) -> dict[str, Any]:
    """The result of the phase, as one process carries it out."""
    game = open_run(path, port, **endpoint)
    with game.run:
        return game.once(STAGE_ONE, "correct", lambda: correct_mistakes(game))
