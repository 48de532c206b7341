"""The student that comes with the package."""

from medcritical_ray.chat import load_tokenizer
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.clinic.exam import ASKS_BY_DIFFICULTY, make_questions
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.prompts import solve_prompt


def test_the_student_knows_every_word_of_the_exam():
    tokenizer, world = load_tokenizer(base_student_dir()), load_world()
    teacher = ClinicTeacher(world)
    for difficulty in ASKS_BY_DIFFICULTY:
        for question in make_questions(world, "test", 200, seed=7, difficulty=difficulty):
            unkeyed = question.unkeyed()
            text = solve_prompt(unkeyed) + "\n" + (teacher.template(unkeyed) or "")
            assert tokenizer.unk_token_id not in tokenizer(text).input_ids
