"""lm-evaluation-harness scores a served student question by question as our own engine and grading do."""

import gc
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.config_files import load_config
from medcritical_ray.engines.engine import Engine
from medcritical_ray.opening import open_run
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Trajectory
from medcritical_ray.rollouts import attempt_turns
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.questions import split_path

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "demo.toml"
NUM_QUESTIONS = 100
MAX_TOKENS = 76
"""Three quarters of the base student's texts end within these, and some are cut off right after their answer."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that has just been opened."""
    values = {
        "run.directory": tmp_path_factory.mktemp("runs"),
        "questions.num_train": 300,
        "questions.num_dev": 1,
        "questions.num_test": NUM_QUESTIONS,
        "generate.sampling.max_tokens": MAX_TOKENS,
        "engines.dtype": "float32",
    }
    config = load_config(CONFIG, [f"{key}={value}" for key, value in values.items()])
    with open_run(config, resume=False, resume_command="", admit=lambda: None) as run:
        return run


@pytest.fixture(scope="module")
def attempts(run: RunDirectory) -> dict[str, Trajectory]:
    """What our engine writes of each test question, greedily, and its grades."""
    config = Config.model_validate(run.record().config)
    turns = attempt_turns(QuestionSet.whole(split_path(run, "test"), NUM_QUESTIONS), iteration=0, num_attempts=1)
    greedy = config.generate.sampling.model_copy(update={"temperature": 0.0})
    engine = Engine(base_student_dir(), 0, config.engines)
    written = engine.generate([turn.request(0) for turn in turns], greedy, 0)
    del engine  # vLLM holds one in a process at a time
    gc.collect()
    return {turn.question.id: turn.trajectory(text, 0) for turn, text in zip(turns, written, strict=True)}


@pytest.fixture(scope="module")
def tasks(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tasks") / "clinic"
    assert main(["questions", str(split_path(run, "test")), "--lm-eval", str(directory)]) == 0
    return directory


def scored(task: Path, model: str, model_args: dict[str, Any], *, chat: bool) -> list[dict[str, Any]]:
    """The harness's record of each question."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model=model,
        model_args={"model": "student", "num_concurrent": 32, **model_args},
        tasks=[str(task)],
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    (samples,) = results["samples"].values()
    return samples


@pytest.mark.timeout(420)
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_the_harness_agrees_with_us_on_every_question(
    endpoint: str, student_server: str, tasks: Path, attempts: dict[str, Trajectory]
):
    if endpoint == "chat":
        url = {"base_url": f"{student_server}/chat/completions"}
        samples = scored(tasks / "chat.yaml", "local-chat-completions", url, chat=True)
    else:
        url = {"base_url": f"{student_server}/completions", "tokenizer_backend": "none"}
        samples = scored(tasks / "completions.yaml", "local-completions", url, chat=False)
    by_harness = {row["doc"]["id"]: (row["filtered_resps"][0], row["exact_match"] == 1) for row in samples}
    assert by_harness == {question: (attempt.answer, attempt.correct) for question, attempt in attempts.items()}
    assert len(by_harness) == NUM_QUESTIONS
    texts = {row["doc"]["id"]: row["resps"][0][0] for row in samples}
    finished = [attempt for attempt in attempts.values() if attempt.finished]
    assert [texts[attempt.question_id] for attempt in finished] == [attempt.output for attempt in finished]


def test_there_is_something_to_agree_on(attempts: dict[str, Trajectory]):
    """Right and wrong answers, and texts that would be answers but for their end."""
    verdicts = [attempt.correct for attempt in attempts.values() if attempt.answer]
    cut_off = [attempt for attempt in attempts.values() if not attempt.finished and attempt.output.endswith(")")]
    assert 15 <= sum(verdicts) <= len(verdicts) - 15
    assert len(cut_off) >= 5
