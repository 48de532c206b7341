"""The clinic's questions, pairs and demonstrations, as a run of the demo has them."""

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcritical_ray.config import Config
    from medcritical_ray.records import Demonstration, PreferencePair, Question


def demo_config(**parts: dict[str, Any]) -> "Config":
    """The demo's config, with some keys of its parts changed."""
    from jobs.demo import CONFIG
    from medcritical_ray.config import Config
    from medcritical_ray.config_files import load_config

    told = load_config(CONFIG, []).model_dump()
    return Config.model_validate(told | {name: told[name] | part for name, part in parts.items()})


def questions(num: int) -> "list[Question]":
    from medcritical_ray.clinic.exam import make_questions
    from medcritical_ray.clinic.world import load_world

    return list(make_questions(load_world(), "train", num, seed=0, difficulty=3))


def pairs(num: int) -> "list[PreferencePair]":
    """One pair to a question: the right trace, preferred to one with a mistake."""
    from medcritical_ray.clinic.teacher import ClinicTeacher
    from medcritical_ray.clinic.world import load_world
    from medcritical_ray.prompts import solve_prompt
    from medcritical_ray.records import PreferencePair

    teacher, rng = ClinicTeacher(load_world()), random.Random(0)
    return [
        PreferencePair(
            iteration=1,
            question_id=question.id,
            source="own",
            attempt=0,
            prompt=solve_prompt(question.unkeyed()),
            prefix="",
            chosen=teacher.template(question.unkeyed()) or "",
            rejected=teacher.mistake(question.unkeyed(), rng) or "",
            rest="",
            chosen_version=0,
            rejected_version=0,
            reason="",
        )
        for question in questions(num)
    ]


def demonstrations(num: int) -> "list[Demonstration]":
    """How to solve so many questions, and how to correct a made-up mistake in each."""
    from medcritical_ray.clinic.teacher import ClinicTeacher
    from medcritical_ray.clinic.world import load_world
    from medcritical_ray.teaching.demonstrations import synthetic_corrections, template_demonstrations
    from medcritical_ray.teaching.reviews import Tally

    teacher, taught, tally = ClinicTeacher(load_world()), questions(num), Tally()
    solved = template_demonstrations(teacher, taught, tally)
    return [*solved, *synthetic_corrections(teacher, taught, per_question=1, seed=0, tally=tally)]
