"""The student that a run starts from: given, embedded, or new."""

from collections.abc import Iterable
from pathlib import Path

from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.records import Question
from medcritical_ray.teaching.teachers import Teacher


def given_student_dir(config: Config) -> Path | None:
    """The absolute directory of the student that the config names or brings with it; None for a fresh one."""
    if config.student.fresh:
        return None
    return Path(config.student.path).absolute() if config.student.path else base_student_dir()


def make_fresh_student(config: Config, questions: Iterable[Question], teacher: Teacher, directory: Path) -> None:
    """Saves a new model with random weights, and a tokenizer trained on what is asked and the teacher's templates."""
    from medcritical_ray.training.models import fresh_student, save_policy
    from medcritical_ray.training.tokenizer import train_tokenizer

    assert config.student.fresh is not None
    tokenizer = train_tokenizer(_texts(questions, teacher), config.student.fresh.vocab_size)
    max_length_tokens = config.engines.max_model_len
    model = fresh_student(config.student.fresh, tokenizer, max_length_tokens=max_length_tokens, seed=config.run.seed)
    save_policy(model, tokenizer, directory)


def _texts(questions: Iterable[Question], teacher: Teacher) -> Iterable[str]:
    for question in questions:
        yield solve_prompt(question.unkeyed())
        template = teacher.template(question.unkeyed())
        if template:
            yield template
