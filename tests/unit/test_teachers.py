"""An exam's explanations as a teacher, on invented explanations of the Chinese licensing exam's kind."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from medcritical_ray.corrections import format_keep
from medcritical_ray.grading import grade_attempt, grade_correction
from medcritical_ray.language import CHINESE
from medcritical_ray.records import Question, lettered
from medcritical_ray.teaching.teachers import (
    TemplateTeacher,
    explained_template,
    fault_of_correction,
    fault_of_template,
    submission,
    verified_template,
)

ONE = Question(
    id="one", source="hand", stem="补充铁的是", options=lettered(["碳酸钙", "硫酸亚铁", "氯化钾", "硫酸镁"]), key="B"
)
SEVERAL = Question(
    id="several", source="hand", stem="脂溶性维生素有", options=lettered(["维生素A", "维生素D", "维生素C"]), key="AB"
)
EXPLANATIONS = {
    "one": "硫酸亚铁（B对）补充铁。碳酸钙（A错）补充钙；氯化钾（C错）补充钾。硫酸镁（D错）补充镁。",
    "several": "脂溶性维生素包括A、D、E、K（AB对）。\n维生素C（C错）为水溶性。",
}
ONE_TEMPLATE = (
    "思路: 根据所知逐项判断各选项，再作选择。\n"
    "步骤 1: 硫酸亚铁（B对）补充铁。\n"
    "步骤 2: 碳酸钙（A错）补充钙；\n"
    "步骤 3: 氯化钾（C错）补充钾。\n"
    "答案: 硫酸亚铁 (B)"
)


def teacher(explanation: str | None = None, max_steps: int = 3, max_step_chars: int = 60) -> TemplateTeacher:
    """The teacher with the explanations above, or with another one of the first question."""
    explanations = EXPLANATIONS | ({"one": explanation} if explanation is not None else {})
    questions = [replace(question, explanation=explanations[question.id]) for question in (ONE, SEVERAL)]
    templates = {q.id: explained_template(q, max_steps=max_steps, max_step_chars=max_step_chars) for q in questions}
    return TemplateTeacher({name: template for name, template in templates.items() if template})


def answer_line(explanation: str) -> str | None:
    template = teacher(explanation).template(ONE.unkeyed())
    return template.splitlines()[-1] if template else None


def test_a_template_has_the_explanations_sentences_for_its_steps_and_the_letters_judged_right_for_its_answer():
    assert teacher().template(ONE.unkeyed()) == ONE_TEMPLATE


def test_a_template_of_a_question_in_english_is_in_english():
    asked = Question(
        id="english",
        source="hand",
        stem="Which of these brings iron?",
        options=lettered(["calcium carbonate", "ferrous sulphate"]),
        key="B",
        explanation="Ferrous sulphate (B正确) is a salt of iron.",
    )
    assert explained_template(asked, max_steps=3, max_step_chars=60) == (
        "Thought: judge the options by what is known of each, then choose.\n"
        "Step 1: Ferrous sulphate (B正确) is a salt of iron.\n"
        "Answer: ferrous sulphate (B)"
    )


def test_several_letters_judged_right_are_all_the_answer():
    template = teacher().template(SEVERAL.unkeyed())
    assert template is not None
    assert template.splitlines()[-1] == "答案: 维生素A; 维生素D (AB)"
    assert grade_attempt(SEVERAL, template, finished=True).correct


@pytest.mark.parametrize("explanation", ["铁剂（B对）。", "铁剂（B正确）。", "A错，B对，C错。", "B对", "铁剂(B对)。"])
def test_a_letter_is_judged_right_in_several_ways(explanation: str):
    assert answer_line(explanation) == "答案: 硫酸亚铁 (B)"


@pytest.mark.parametrize(
    "explanation", ["", "硫酸亚铁补充铁。", "A错，C错，D错。", "B不对。", "铁剂（H对）。", "DNA对此无影响。"]
)
def test_an_explanation_that_judges_no_option_right_makes_no_template(explanation: str):
    assert answer_line(explanation) is None


def test_a_question_without_an_explanation_has_no_template():
    drops: Counter[str] = Counter()
    assert verified_template(TemplateTeacher({}), ONE, drops) is None
    assert drops == {"teacher has no template": 1}


def test_steps_are_bounded_in_number_and_length():
    template = teacher(max_steps=2, max_step_chars=4).template(ONE.unkeyed())
    assert template is not None
    assert template.splitlines()[1:] == ["步骤 1: 硫酸亚铁", "步骤 2: 碳酸钙（", "答案: 硫酸亚铁 (B)"]


def test_a_decimal_point_ends_no_sentence():
    template = teacher("体温37.5℃（B对）。It is so. Then rest.").template(ONE.unkeyed())
    assert template is not None
    assert template.splitlines()[1:-1] == ["步骤 1: 体温37.5℃（B对）。", "步骤 2: It is so.", "步骤 3: Then rest."]


def test_a_template_that_misses_the_key_is_dropped_and_counted():
    drops: Counter[str] = Counter()
    assert verified_template(teacher("碳酸钙（A对）补充铁。"), ONE, drops) is None
    assert drops == {"template misses the key": 1}


def test_a_template_that_reaches_the_key_counts():
    drops: Counter[str] = Counter()
    assert verified_template(teacher(), ONE, drops) == ONE_TEMPLATE
    assert drops == {}


def test_an_attempt_with_the_teachers_answer_is_kept():
    attempt = "思路：猜。\n步骤1：铁。\n答案：硫酸亚铁（B）"
    assert teacher().correction(ONE.unkeyed(), attempt) == format_keep(CHINESE)


def test_an_attempt_with_another_answer_is_redone_from_the_first_step_that_differs():
    attempt = "Thought: guess.\nStep 1: 硫酸亚铁（B对）补充铁。\nStep 2: 碳酸钙也补充铁。\nAnswer: 碳酸钙 (A)"
    correction = teacher().correction(ONE.unkeyed(), attempt)
    assert correction == (
        "检查: 步骤 2 有误: 由此得不出答案。\n"
        "步骤 2: 碳酸钙（A错）补充钙；\n步骤 3: 氯化钾（C错）补充钾。\n答案: 硫酸亚铁 (B)"
    )
    assert grade_correction(ONE, attempt, correction, finished=True).correct


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["硫酸亚铁（B对）补充铁。"],
        ["硫酸亚铁（B对）补充铁。", "碳酸钙（A错）补充钙；", "氯化钾（C错）补充钾。"],
        ["硫酸亚铁（B对）补充铁。", "碳酸钙（A错）补充钙；", "氯化钾（C错）补充钾。", "还有一步。"],
    ],
)
def test_an_attempt_of_any_length_is_led_to_the_key(steps: list[str]):
    lines = [f"Step {number}: {step}" for number, step in enumerate(steps, 1)]
    attempt = "\n".join([*lines, "Answer: 氯化钾 (C)"])
    correction = teacher().correction(ONE.unkeyed(), attempt)
    assert correction is not None
    assert fault_of_correction(ONE, attempt, correction) is None


def test_a_correction_that_misses_the_key_does_not_count():
    attempt = "Step 1: 铁。\nAnswer: 硫酸亚铁 (B)"
    correction = teacher("碳酸钙（A对）补充铁。").correction(ONE.unkeyed(), attempt)
    assert correction is not None
    assert fault_of_correction(ONE, attempt, correction) == "correction misses the key"


@pytest.mark.parametrize("answer", ["B", "碳酸钙 (B)", "硫酸亚铁 (B)"])
def test_a_right_attempt_is_kept_by_its_letters_whatever_text_is_beside_them(answer: str):
    attempt = f"Step 1: 铁。\nAnswer: {answer}"
    assert teacher().correction(ONE.unkeyed(), attempt) == format_keep(CHINESE)
    assert fault_of_correction(ONE, attempt, format_keep()) is None


@pytest.mark.parametrize(
    ("correction", "fault"),
    [
        ("It should be iron (B).", "correction cannot be read"),
        ("Check: step 7 is wrong: no.\nStep 7: 铁。\nAnswer: 硫酸亚铁 (B)", "correction cannot be read"),
        ("Check: step 1 is wrong: no.\nStep 1: 铁。", "correction cannot be read"),
        (format_keep(), "correction misses the key"),
        (
            "Check: the answer is wrong: the answer key says B.\nAnswer: 硫酸亚铁 (B)",
            "correction speaks of a given answer",
        ),
        ("Check: the answer is wrong: calcium is no iron.\nAnswer: 硫酸亚铁 (B)", None),
        ("Check: the answer is wrong: calcium is no iron.\nAnswer: B", "correction does not state the option's text"),
    ],
)
def test_a_correction_counts_only_if_it_can_be_read_reaches_the_key_and_gives_nothing_away(
    correction: str, fault: str | None
):
    assert fault_of_correction(ONE, "Step 1: 钙。\nAnswer: 碳酸钙 (A)", correction) == fault


def test_what_is_handed_in_holds_no_key():
    handed_in = submission(ONE, "Step 1: 钙。\nAnswer: 碳酸钙 (A)", "repair")
    assert handed_in.question == ONE.unkeyed()
    assert not hasattr(handed_in, "key")


def test_a_synthetic_mistake_is_the_template_with_another_option():
    mistakes = {teacher().mistake(ONE.unkeyed(), random.Random(seed)) for seed in range(30)}
    steps = ONE_TEMPLATE.removesuffix("答案: 硫酸亚铁 (B)")
    assert mistakes == {steps + answer for answer in ("答案: 碳酸钙 (A)", "答案: 氯化钾 (C)", "答案: 硫酸镁 (D)")}


def test_no_mistake_is_made_of_a_question_without_a_template():
    assert TemplateTeacher({}).mistake(ONE.unkeyed(), random.Random(0)) is None


@pytest.mark.parametrize(
    "thought",
    [
        "the answer key says B.",
        "we reason towards the given answer.",
        "since the correct answer is given as iron, explain it.",
        "according to the answer, it is iron.",
        "标准答案为B。",
        "根据答案，选B。",
    ],
)
def test_a_template_that_speaks_of_a_given_answer_does_not_count(thought: str):
    template = ONE_TEMPLATE.replace("根据所知逐项判断各选项，再作选择。", thought)
    assert fault_of_template(ONE, template) == "template speaks of a given answer"
    assert fault_of_template(ONE, ONE_TEMPLATE) is None


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("I think it is iron.", "template cannot be read"),
        ("Answer: 硫酸亚铁 (B)", "template cannot be read"),
        (ONE_TEMPLATE.replace("硫酸亚铁 (B)", "碳酸钙 (A)"), "template misses the key"),
        (ONE_TEMPLATE.replace("硫酸亚铁 (B)", "碳酸钙 (B)"), "template does not state the option's text"),
        (ONE_TEMPLATE.replace("硫酸亚铁 (B)", "B"), "template does not state the option's text"),
    ],
)
def test_a_template_counts_only_if_it_can_be_read_and_reaches_the_key(template: str, fault: str):
    assert fault_of_template(ONE, template) == fault
