import random
import re
from collections import Counter
from itertools import combinations, islice

import pytest

from medcritical_ray import trace as traces
from medcritical_ray.clinic.corpus import NO_REASON, contrast, documents
from medcritical_ray.clinic.exam import (
    NUM_ALLOWING,
    draw_contraindication,
    make_questions,
    read_case,
    right_result,
    split_of,
)
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import load_world
from medcritical_ray.corrections import Correction, format_anew, read_correction
from medcritical_ray.grading import grade_attempt, grade_correction
from medcritical_ray.records import UnkeyedQuestion, lettered
from medcritical_ray.trace import answer_of, steps_of

WORLD = load_world()
TEACHER = ClinicTeacher(WORLD)


def questions(split="train", count=200, seed=0, difficulty=3):
    return list(make_questions(WORLD, split, count, seed=seed, difficulty=difficulty))


def test_the_world_is_as_large_as_promised():
    assert len(WORLD.conditions) >= 40
    assert len(WORLD.findings) >= 60
    assert len(WORLD.treatments) >= 60
    assert len(WORLD.contraindications) >= 12


def test_every_name_that_the_world_uses_is_in_its_lists():
    for condition in WORLD.conditions.values():
        assert set(condition.findings) <= set(WORLD.findings)
        assert {condition.first_choice, condition.alternative} <= set(WORLD.treatments)
    for treatment in WORLD.treatments.values():
        assert set(treatment.contraindications) <= set(WORLD.contraindications)


def test_no_name_stands_for_two_things():
    assert Counter(WORLD.terms()).most_common(1)[0][1] == 1
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", term) for term in WORLD.terms())


def test_three_findings_of_a_condition_mean_it_alone():
    for condition in WORLD.conditions.values():
        for three in combinations(condition.findings, 3):
            assert WORLD.diagnose(list(three)) == condition.name


def test_what_forbids_the_first_choice_allows_the_alternative():
    for condition in WORLD.conditions.values():
        first, alternative = WORLD.treatments[condition.first_choice], WORLD.treatments[condition.alternative]
        assert not set(first.contraindications) & set(alternative.contraindications)


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_a_question_has_five_different_options_and_one_is_right(difficulty):
    for question in questions(difficulty=difficulty):
        texts = [option.text for option in question.options]
        assert len(set(texts)) == 5
        case = read_case(question.stem)
        assert case is not None
        assert texts["ABCDE".index(question.key)] == right_result(WORLD, case)


def test_the_same_seed_makes_the_same_questions_and_another_makes_others():
    assert questions(seed=3) == questions(seed=3)
    assert questions(seed=3) != questions(seed=4)


def test_splits_share_no_question_whatever_their_seeds():
    def cases(split, seed):
        read = [read_case(question.stem) for question in questions(split, 1500, seed)]
        return {(frozenset(c.findings), c.contraindication, c.weight_kg, c.ask) for c in read if c}

    assert not cases("train", 1) & cases("test", 2)
    assert not cases("train", 1) & cases("dev", 2)
    assert not cases("dev", 1) & cases("test", 1)


def test_no_option_letter_is_right_much_more_often_than_another():
    counts = Counter(question.key for question in questions(count=1000))
    assert min(counts.values()) > 150


def test_the_teacher_reaches_every_key_without_seeing_it():
    for question in questions():
        template = TEACHER.template(question.unkeyed())
        assert template is not None
        grade = grade_attempt(question, template, finished=True)
        assert grade.correct
        assert grade.agrees


def test_the_teacher_is_silent_about_other_questions():
    other = UnkeyedQuestion(id="x", stem="Which bone is the longest?", options=lettered(["femur", "tibia"]))
    assert TEACHER.template(other) is None
    assert TEACHER.correction(other, "Answer: femur (A)") is None


def test_the_teacher_repairs_every_synthetic_mistake_at_its_first_wrong_step():
    rng = random.Random(0)
    for question in questions():
        mistake = TEACHER.mistake(question.unkeyed(), rng)
        assert mistake is not None
        assert traces.steps_of(mistake) != traces.steps_of(TEACHER.template(question.unkeyed()) or "")
        correction = TEACHER.correction(question.unkeyed(), mistake) or ""
        grade = grade_correction(question, mistake, correction, finished=True)
        assert grade.correct
        assert grade.trace == TEACHER.template(question.unkeyed())


def test_the_teacher_keeps_what_is_right():
    question = questions(count=1)[0]
    template = TEACHER.template(question.unkeyed()) or ""
    assert TEACHER.correction(question.unkeyed(), template) == format_anew(template)


def test_a_right_answer_after_a_wrong_step_is_not_kept():
    for question in questions(count=50):
        template = TEACHER.template(question.unkeyed()) or ""
        lucky = template.replace(" mean ", " may mean ")
        correction = TEACHER.correction(question.unkeyed(), lucky) or ""
        assert read_correction(lucky, correction) == Correction(1, template)


def test_the_corpus_is_the_same_for_the_same_seed():
    texts = list(islice(documents(WORLD, 0, num_drills=500), 1000))
    assert texts == list(islice(documents(WORLD, 0, num_drills=500), 1000))


def test_the_corpus_is_about_no_case_of_dev_or_test():
    stems = [text.splitlines()[0] for text in islice(documents(WORLD, 0, num_drills=0), 1000) if "patient" in text]
    cases = [read_case(stem) for stem in stems]
    assert len(cases) > 300
    assert None not in cases
    assert {split_of(case) for case in cases if case} == {"train"}


def test_people_answer_what_they_have_reasoned_and_guess_only_where_it_is_no_option():
    texts = [text for text in islice(documents(WORLD, 0, num_drills=0), 1000) if "patient" in text]
    guesses = 0
    for text in texts:
        steps, answer = steps_of(text), answer_of(text)
        assert answer is not None
        options = [line[2:-4] for line in text.splitlines() if line.startswith("- ")]
        reasoned = steps[-1].endswith((f" {answer.text}.", f" {answer.text} is allowed."))
        result = [o for o in options if steps[-1].endswith((f" {o}.", f" {o} is allowed."))]
        assert reasoned or not result
        assert f"- {answer.text} ({answer.letters})" in text
        guesses += not reasoned
    assert 0 < guesses < len(texts) / 2


@pytest.mark.parametrize(
    ("said", "right", "reason"),
    [
        (
            "fever, cough and chills mean asthma.",
            "fever, cough and chills mean flu.",
            "fever, cough and chills mean not asthma but flu.",
        ),
        (
            "with pregnancy, aspirin is allowed.",
            "with pregnancy, aspirin is forbidden, and the alternative for fever is paracetamol.",
            "with pregnancy, aspirin is not allowed but forbidden.",
        ),
        (
            "with pregnancy, aspirin is forbidden, and the alternative for fever is morphine.",
            "with pregnancy, aspirin is forbidden, and the alternative for fever is paracetamol.",
            "the alternative for fever is not morphine but paracetamol.",
        ),
        (
            "with pregnancy, aspirin is forbidden, and the alternative for fever is morphine.",
            "with pregnancy, aspirin is allowed.",
            "with pregnancy, aspirin is not forbidden but allowed.",
        ),
        (
            "the first choice for flu is aspirin.",
            "the first choice for fever is aspirin.",
            "the first choice for fever is aspirin.",
        ),
        (
            "no sentence of the clinic.",
            "the first choice for fever is aspirin.",
            "the first choice for fever is aspirin.",
        ),
        ("it rains, and it pours.", "it rains.", NO_REASON),
    ],
)
def test_a_reason_states_the_truth_against_what_the_step_says_instead(said, right, reason):
    assert contrast(said, right) == reason


def test_exams_name_each_treatment_with_few_contraindications_that_allow_it():
    rng = random.Random(0)
    for name, treatment in WORLD.treatments.items():
        named = {draw_contraindication(WORLD, name, rng) for _ in range(200)}
        assert set(treatment.contraindications) <= named
        assert len(named - set(treatment.contraindications)) == NUM_ALLOWING
