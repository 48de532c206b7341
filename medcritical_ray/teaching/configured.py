"""The teacher that a config names, and whoever knows whether a trace is right."""

from collections.abc import Callable, Iterable
from pathlib import Path

from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config import Config
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.records import Question
from medcritical_ray.teaching.distilled import templates_of
from medcritical_ray.teaching.teachers import Teacher, TemplateTeacher, explained_template
from medcritical_ray.trace import steps_of


def make_teacher(config: Config, taught: Iterable[Question]) -> Teacher:
    """The configured teacher, who knows the `taught` questions of stage 1."""
    if config.teacher.kind == "clinic":
        return ClinicTeacher(load_world())
    if config.teacher.kind == "distilled":
        return TemplateTeacher(templates_of(taught, Path(config.teacher.path or "")))
    limits = {"max_steps": config.teacher.max_steps, "max_step_chars": config.teacher.max_step_chars}
    templates = {question.id: explained_template(question, **limits) for question in taught}
    return TemplateTeacher({question_id: template for question_id, template in templates.items() if template})


def make_truth(config: Config, train: QuestionSet) -> Callable[[str, str], bool] | None:
    """Whether a trace of a training question, by its id, is right in every step; None where nobody knows the steps."""
    if config.questions.kind != "clinic":
        return None
    teacher = ClinicTeacher(load_world())
    templates = {question.id: teacher.template(question.unkeyed()) or "" for question in train}
    return lambda question_id, trace: steps_of(trace) == steps_of(templates[question_id])
