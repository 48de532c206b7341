"""The student that a run starts from: given, embedded, or new; and whether its context holds the run's prompts."""

from collections.abc import Iterable
from pathlib import Path

from medcritical_ray.chat import load_tokenizer, prompt_token_ids
from medcritical_ray.clinic.student import base_student_dir
from medcritical_ray.config import Config
from medcritical_ray.plan import check_context
from medcritical_ray.prompts import correction_prompt, question_text
from medcritical_ray.records import Question
from medcritical_ray.teachers import Teacher
from medcritical_ray.training.models import fresh_student, save_policy
from medcritical_ray.training.tokenizer import train_tokenizer


def given_student_dir(config: Config) -> Path | None:
    """The absolute directory of the student that the config names or brings with it; None for a fresh one."""
    if config.student.fresh:
        return None
    return Path(config.student.path).absolute() if config.student.path else base_student_dir()


def make_fresh_student(config: Config, questions: Iterable[Question], teacher: Teacher, directory: Path) -> None:
    """Saves a new model with random weights, and a tokenizer trained on the questions and the teacher's templates."""
    assert config.student.fresh is not None
    tokenizer = train_tokenizer(_texts(questions, teacher), config.student.fresh.vocab_size)
    max_length_tokens = config.engines.max_model_len
    model = fresh_student(config.student.fresh, tokenizer, max_length_tokens=max_length_tokens, seed=config.run.seed)
    save_policy(model, tokenizer, directory)


def check_prompts(config: Config, student_dir: Path, questions: Iterable[Question]) -> None:
    """Raises UserError if the longest prompt there can be, a correction's, leaves too little room in the context."""
    tokenizer = load_tokenizer(student_dir)
    prompts = [correction_prompt(question.unkeyed(), "", "repair") for question in questions]
    longest = max(map(len, prompt_token_ids(tokenizer, prompts, [""] * len(prompts))))
    attempt, correction = config.generate.sampling.max_tokens, config.correct.sampling.max_tokens
    check_context(longest + attempt, correction, config.engines.max_model_len)


def _texts(questions: Iterable[Question], teacher: Teacher) -> Iterable[str]:
    for question in questions:
        yield question_text(question.unkeyed())
        template = teacher.template(question.unkeyed())
        if template:
            yield template
