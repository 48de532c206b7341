"""Questions are asked in their own language; what is written in answer is read in any."""

import pytest

from medcritical_ray import trace as traces
from medcritical_ray.answers import Answer
from medcritical_ray.config import EndpointConfig
from medcritical_ray.corrections import read_correction
from medcritical_ray.language import CHINESE, ENGLISH, LANGUAGES, Language, language_of
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import UnkeyedQuestion, lettered
from medcritical_ray.teaching.endpoint.templates import first_messages


def asking(stem: str, *options: str) -> UnkeyedQuestion:
    return UnkeyedQuestion(id="q", stem=stem, options=lettered(list(options)))


IN_CHINESE = asking("肺炎首选的药物是", "阿莫西林", "阿司匹林")
IN_ENGLISH = asking("What is the first choice for pneumonia?", "amoxicillin", "aspirin")


@pytest.mark.parametrize(
    ("question", "language"),
    [
        (IN_CHINESE, CHINESE),
        (IN_ENGLISH, ENGLISH),
        (asking("RNA是", "核糖核酸", "核糖核苷酸"), CHINESE),
        (asking("正常人的开口度为", "1.5~2.5cm", "3.7~4.5cm", "5.7~6.5cm", "6.7~7.5cm"), CHINESE),
        (asking("IgE的转换因子", "IL-1", "IL-2", "IL-4"), CHINESE),
        (asking("The herb called 麻黄 contains which drug?", "ephedrine", "digoxin"), ENGLISH),
        (asking("12 x 3 = ?", "36", "35"), ENGLISH),
    ],
)
def test_the_language_of_a_question_is_told_from_its_text(question: UnkeyedQuestion, language: Language):
    assert language_of(question) is language


def test_a_question_in_english_is_asked_in_english():
    text = "What is the first choice for pneumonia?\n- amoxicillin (A)\n- aspirin (B)\n"
    assert solve_prompt(IN_ENGLISH) == text + "Solve the question step by step."
    assert correction_prompt(IN_ENGLISH, "Answer: aspirin (B)", "repair") == text + (
        "Attempt:\nAnswer: aspirin (B)\nThe attempt is wrong. Find its first wrong step and redo it from there."
    )
    assert correction_prompt(IN_ENGLISH, "Answer: aspirin (B)", "check") == text + (
        "Attempt:\nAnswer: aspirin (B)\n"
        "Check the attempt. Keep it if every step is right, else redo it from its first wrong step."
    )


def test_a_question_in_chinese_is_asked_in_chinese():
    text = "肺炎首选的药物是\n- 阿莫西林 (A)\n- 阿司匹林 (B)\n"
    assert solve_prompt(IN_CHINESE) == text + "请逐步解答该题。"
    assert correction_prompt(IN_CHINESE, "答案: 阿司匹林 (B)", "repair") == text + (
        "解答:\n答案: 阿司匹林 (B)\n以上解答有误。请找出第一个错误的步骤，并从该步起重做。"
    )
    assert correction_prompt(IN_CHINESE, "答案: 阿司匹林 (B)", "check") == text + (
        "解答:\n答案: 阿司匹林 (B)\n请检查以上解答。若每一步都正确，则保留；否则从第一个错误的步骤起重做。"
    )


def test_a_trace_is_written_with_the_marks_of_its_language():
    answer_line = traces.format_answer(["阿莫西林"], "A", CHINESE)
    trace = traces.format_trace("先定诊断。", ["是肺炎。", "首选阿莫西林。"], answer_line, frozenset({2}), CHINESE)
    assert trace == "思路: 先定诊断。\n步骤 1: 是肺炎。\n步骤 2 (关键): 首选阿莫西林。\n答案: 阿莫西林 (A)"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_trace_of_any_language_is_read_as_it_was_written(language: Language):
    answer_line = traces.format_answer(["rest", "水"], "AC", language)
    trace = traces.format_trace("think.", ["so.", "不是。"], answer_line, frozenset({1}), language)
    assert traces.steps_of(trace) == ["so.", "不是。"]
    assert traces.answer_of(trace) == Answer("rest; 水", "AC")
    assert traces.lines_from_step(trace, 3) == answer_line


@pytest.mark.parametrize(
    "line",
    [
        "步骤1：是肺炎。",
        "步骤 1： 是肺炎。",
        "步骤1（关键）：是肺炎。",
        "步骤 1 (关键): 是肺炎。",
        "Step 1 (key): 是肺炎。",
        "步骤１：是肺炎。",
    ],
)
def test_steps_are_read_in_either_language_and_width(line: str):
    trace = f"{line}\n步骤2：首选阿莫西林。\n答案：阿莫西林（A）"
    assert traces.steps_of(trace) == ["是肺炎。", "首选阿莫西林。"]
    assert traces.text_of_step(trace, 1) == f"{line}\n"
    assert traces.lines_from_step(trace, 3) == "答案：阿莫西林（A）"


def test_a_correction_of_a_trace_in_chinese_is_read():
    attempt = "步骤1：是肺炎。\n步骤2：首选阿司匹林。\n答案：阿司匹林（B）"
    redone = "Check: step 2 is wrong: no.\n步骤2：首选阿莫西林。\n答案：阿莫西林（A）"
    correction = read_correction(attempt, redone)
    assert correction is not None
    assert correction.trace == "步骤1：是肺炎。\n步骤2：首选阿莫西林。\n答案：阿莫西林（A）"
    only_the_answer = "Check: the answer is wrong: no.\n答案：阿莫西林（A）"
    assert read_correction(attempt, only_the_answer) is not None


@pytest.mark.parametrize(
    ("question", "language"), [(IN_ENGLISH, ENGLISH), (IN_CHINESE, CHINESE)], ids=["English", "Chinese"]
)
def test_a_large_model_is_shown_the_form_in_the_questions_language(question: UnkeyedQuestion, language: Language):
    config = EndpointConfig(base_url="http://localhost", model="large", max_steps=4)
    form = str(first_messages(question, config)[0]["content"])
    example = "\n".join(line for line in form.splitlines() if line.startswith((language.step, language.answer)))
    assert len(traces.steps_of(example)) == 2
    assert (
        traces.answer_of(example) == Answer("发热; 咳嗽", "AC") if language is CHINESE else "fever; cough (AC)" in form
    )
    assert f"{language.thought}: " in form
    assert " 4" in form
