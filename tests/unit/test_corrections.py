import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray import trace as traces
from medcritical_ray.corrections import (
    Correction,
    format_anew,
    format_correction,
    format_keep,
    is_written_anew,
    read_correction,
)
from medcritical_ray.language import CHINESE, ENGLISH, Language

ATTEMPT = """\
Thought: name the condition, then take its first choice.
Step 1: fever, cough and chest pain mean pneumonia.
Step 2 (key): the first choice for pneumonia is aspirin.
Answer: aspirin (B)"""

REPAIR = """\
Check: step 2 is wrong: the first choice for pneumonia is not aspirin but amoxicillin.
Step 2 (key): the first choice for pneumonia is amoxicillin.
Answer: amoxicillin (C)"""

REPAIRED = """\
Thought: name the condition, then take its first choice.
Step 1: fever, cough and chest pain mean pneumonia.
Step 2 (key): the first choice for pneumonia is amoxicillin.
Answer: amoxicillin (C)"""

CHINESE_ATTEMPT = "思路: 先诊断。\n步骤 1: 发热咳嗽提示肺炎。\n步骤 2 (关键): 首选阿司匹林。\n答案: 阿司匹林 (B)"
CHINESE_REPAIRED = "思路: 先诊断。\n步骤 1: 发热咳嗽提示肺炎。\n步骤 2 (关键): 首选阿莫西林。\n答案: 阿莫西林 (C)"


def test_a_repair_goes_on_from_the_first_wrong_step():
    assert read_correction(ATTEMPT, REPAIR) == Correction(2, REPAIRED)


def test_the_teachers_correction_is_read_back_as_its_template():
    written = format_correction(REPAIRED, 2, "the first choice for pneumonia is not aspirin but amoxicillin.")
    assert written == REPAIR


def test_keeping_gives_the_attempt_itself():
    assert format_keep() == "Check: every step is right."
    assert read_correction(ATTEMPT, "Check: every step is right.") == Correction(None, ATTEMPT)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\t\n", " \n"])
def test_what_is_written_anew_is_told_by_its_first_line_whatever_ends_it(end: str):
    assert is_written_anew(f"Check:{end}{REPAIRED}")
    assert not is_written_anew(f"Check: every step is right.{end}")


def test_keeping_and_redoing_at_once_is_no_correction():
    assert read_correction(ATTEMPT, "Check: every step is right.\nAnswer: rest (A)") is None


def test_of_a_trace_written_anew_the_first_step_that_differs_is_called_wrong():
    assert read_correction(ATTEMPT, f"Check:\n{REPAIRED}") == Correction(2, REPAIRED)


def test_of_a_trace_written_anew_the_answer_alone_may_differ():
    other_answer = ATTEMPT.replace("aspirin (B)", "rest (A)")
    assert read_correction(ATTEMPT, f"Check:\n{other_answer}") == Correction(3, other_answer)


def test_who_writes_the_same_steps_and_answer_again_keeps_the_attempt():
    assert read_correction(ATTEMPT, f"Check:\n{ATTEMPT}") == Correction(None, ATTEMPT)
    assert read_correction(ATTEMPT, f"Check:\n{ATTEMPT.replace('name the', 'say the')}") == Correction(None, ATTEMPT)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "I see nothing wrong.",
        "Check:",
        "Check:\nAnswer: rest (A)",
        "Check: it is wrong.\nStep 1: it is another.\nAnswer: rest (A)",
        "Check: step 2 is wrong: no.",
        "Check: step 2 is wrong: no.\nStep 2 (key): the first choice for pneumonia is aspirin.\nAnswer: rest (A)",
        "Check: step 1 is wrong: no.\nStep 2: the first choice for pneumonia is rest.\nAnswer: rest (A)",
        "Check: step 1 is wrong: no.\nAnswer: rest (A)",
        "Check: step 9 is wrong: no.\nStep 9: rest.\nAnswer: rest (A)",
        "Check: step 0 is wrong: no.\nStep 0: rest.\nAnswer: rest (A)",
        "Check: the answer is wrong: no.\nStep 2: rest.\nAnswer: rest (A)",
        "Check: the answer is wrong: no.\nAnswer: aspirin (B)",
    ],
)
def test_what_redoes_no_step_of_the_attempt_or_changes_nothing_is_no_correction(output: str):
    assert read_correction(ATTEMPT, output) is None


def test_only_the_answer_may_be_called_wrong():
    correction = read_correction(ATTEMPT, "Check: the answer is wrong: it does not follow.\nAnswer: rest (A)")
    assert correction is not None
    assert correction.first_wrong_step == 3
    assert traces.steps_of(correction.trace) == traces.steps_of(ATTEMPT)
    assert traces.answer_of(correction.trace) == traces.Answer("rest", "A")


def test_an_attempt_in_chinese_is_corrected_in_chinese():
    repair = "检查: 步骤 2 有误: 应为阿莫西林。\n步骤 2 (关键): 首选阿莫西林。\n答案: 阿莫西林 (C)"
    assert format_correction(CHINESE_REPAIRED, 2, "应为阿莫西林。", CHINESE) == repair
    assert read_correction(CHINESE_ATTEMPT, repair) == Correction(2, CHINESE_REPAIRED)
    assert format_keep(CHINESE) == "检查: 每一步都正确。"
    assert read_correction(CHINESE_ATTEMPT, "检查：每一步都正确。") == Correction(None, CHINESE_ATTEMPT)
    assert read_correction(CHINESE_ATTEMPT, f"检查:\n{CHINESE_REPAIRED}") == Correction(2, CHINESE_REPAIRED)
    answer_alone = read_correction(CHINESE_ATTEMPT, "检查：答案有误：与步骤不符。\n答案：休息（A）")
    assert answer_alone is not None
    assert answer_alone.first_wrong_step == 3


@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from([ENGLISH, CHINESE]))
def test_a_correction_in_either_form_is_read_back_as_the_trace_that_it_leads_to(
    num_steps: int, first_wrong: int, language: Language
):
    first_wrong = min(first_wrong, num_steps + 1)
    steps = [f"thing {number} holds." for number in range(1, num_steps + 1)]
    redone = [*steps[: first_wrong - 1], *("it is otherwise." for _ in steps[first_wrong - 1 :])]
    attempt = traces.format_trace("think.", steps, traces.format_answer(["rest"], "A", language), language=language)
    trace = traces.format_trace("think.", redone, traces.format_answer(["heat"], "B", language), language=language)
    named = format_correction(trace, first_wrong, "it does not follow.", language)
    assert read_correction(attempt, named) == Correction(first_wrong, trace)
    assert read_correction(attempt, format_anew(trace, language)) == Correction(first_wrong, trace)
