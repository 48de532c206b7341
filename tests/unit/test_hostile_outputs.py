"""What models and teachers write, whatever it is: it is graded, always the same, and never breaks what reads it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hostile import LONG, NASTY, in_a_moment, plain, questions, texts
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.config import PairsConfig
from medcritical_ray.corrections import format_keep, read_correction
from medcritical_ray.grading import grade_attempt, grade_correction
from medcritical_ray.language import CHINESE
from medcritical_ray.pairing import PairingCounts, make_pairs
from medcritical_ray.prompts import correction_of_solve_prompt, correction_prompt, solve_prompt
from medcritical_ray.records import Option, PreferencePair, Question, Trajectory, lettered
from medcritical_ray.rollouts import Completion, Turn
from medcritical_ray.run.tables import read_part, write_part
from medcritical_ray.serving.self_correction import check_prompt, corrected
from medcritical_ray.teaching.teachers import (
    TemplateTeacher,
    explained_template,
    fault_of_correction,
    fault_of_template,
)
from medcritical_ray.trace import lines_before_step, lines_from_step, steps_of

TRACE = "Thought: x.\nStep 1: y.\nStep 2 (key): z.\nAnswer: rest (A)"
QUESTION = Question(id="q", source="hand", stem="Which?", options=lettered(["rest", "water"]), key="B")

marks = st.sampled_from(
    [
        *("Thought: ", "Step 1: ", "Step 2 (key): ", "步骤 1：", "Step 99999: ", f"Step {'1' * 5000}: ", "Step ٣: "),
        *("Check: ", "Check: step 1 is wrong: ", f"Check: step {'1' * 5000} is wrong: ", "检查: 步骤 2 有误: "),
        *("Check: the answer is wrong: ", format_keep(), format_keep(CHINESE), "According to the answer key, "),
        *(
            "Answer: ",
            "Answer: rest (A)",
            "Answer: B",
            "【答案】B",
            "答案：",
            "**Answer:** ",
            r"\boxed{B}",
            "Answer: not ",
        ),
    ]
)
outputs = st.lists(marks | texts, max_size=5).map("".join) | st.lists(marks | texts, max_size=5).map("\n".join)
completions = st.builds(Completion, text=outputs.map(plain), finished=st.booleans(), num_tokens=st.just(9))


@given(questions(), outputs, st.booleans())
def test_any_attempt_is_graded_and_always_the_same(question: Question, output: str, finished: bool):
    grade = grade_attempt(question, output, finished=finished)
    assert grade == grade_attempt(question, output, finished=finished)
    assert set(grade.answer) <= {option.letter for option in question.options}
    assert grade.correct == (grade.answer == question.key)
    assert finished or not grade.answer


@given(questions(), outputs, outputs)
def test_any_correction_is_graded_as_the_trace_that_it_leads_to(question: Question, attempt: str, output: str):
    grade = grade_correction(question, attempt, output, finished=True)
    assert grade == grade_correction(question, attempt, output, finished=True)
    correction = read_correction(attempt, output)
    of_trace = grade_attempt(question, correction.trace, finished=True) if correction else None
    assert (grade.answer, grade.correct) == ((of_trace.answer, of_trace.correct) if of_trace else ("", False))


@given(questions(), outputs, outputs)
def test_any_text_of_a_teacher_has_a_fault_or_reaches_the_key(question: Question, attempt: str, text: str):
    if fault_of_template(question, text) is None:
        assert grade_attempt(question, text, finished=True).correct
    if fault_of_correction(question, attempt, text) is None:
        assert grade_correction(question, attempt, text, finished=True).correct


@given(questions(), outputs)
def test_a_teacher_of_any_templates_corrects_any_attempt(question: Question, template: str):
    explained = explained_template(replace(question, explanation=template), max_steps=3, max_step_chars=60)
    for each in filter(None, (template, explained)):
        correction = TemplateTeacher({question.id: each}).correction(question.unkeyed(), TRACE)
        assert correction is not None
        fault_of_correction(question, TRACE, correction)


@given(outputs, st.integers(1, 4))
def test_a_trace_is_its_lines_before_a_step_and_from_it_on(trace: str, step: int):
    assert (lines_before_step(trace, step) + lines_from_step(trace, step)).splitlines() == trace.splitlines()


@given(questions(), st.lists(completions, min_size=4, max_size=4))
def test_pairs_of_any_texts_prefer_what_is_right_and_are_read_back_the_same(
    question: Question, completions: list[Completion]
):
    turn = Turn(question=question, iteration=1, task="solve", attempt_number=0, sample=0)
    attempts = [
        replace(turn, attempt_number=number).trajectory(each, version=0) for number, each in enumerate(completions[:2])
    ]
    tried = [
        replace(turn, task=task, sample=sample, attempt=attempts[0].trace).trajectory(each, version=0)
        for task in ("repair", "check")
        for sample, each in enumerate(completions[2:])
    ]
    counts = PairingCounts()
    config = PairsConfig(shares={"correction": 0.25, "own": 0.25, "repair": 0.25, "keep": 0.25}, min_agreement=1)
    pairs = make_pairs(question, [*attempts, *tried], config, counts)
    assert counts.pairs == Counter(pair.source for pair in pairs)
    for pair in pairs:
        if pair.source in ("correction", "own"):
            assert grade_attempt(question, pair.prefix + pair.chosen + pair.rest, finished=True).correct
    with TemporaryDirectory() as directory:
        parts = Path(directory)
        assert read_part(write_part(parts / "pairs", 0, pairs, PreferencePair), PreferencePair) == pairs
        assert read_part(write_part(parts / "tried", 0, tried, Trajectory), Trajectory) == tried


@given(questions(), outputs)
def test_any_question_is_asked_to_be_solved_and_any_answer_checked(question: Question, attempt: str):
    unkeyed = question.unkeyed()
    prompt = solve_prompt(unkeyed)
    assert correction_of_solve_prompt(prompt, attempt, "check") == correction_prompt(
        question.unkeyed(), attempt, "check"
    )
    checked = check_prompt(prompt, attempt, finished=True)
    assert checked is None or attempt.strip().splitlines()[-1] in checked
    final = corrected(attempt, attempt, finished=True)
    assert final.outcome in ("kept", "corrected", "unreadable correction")


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_an_answer_in_the_question_is_not_the_models(text: str):
    hostile = replace(
        QUESTION, stem=f"{text}\nAnswer: B", options=(Option("A", f"rest {text}"), Option("B", "Answer: B (B)"))
    )
    assert not grade_attempt(hostile, "I do not know.", finished=True).answer
    assert not grade_attempt(hostile, "Answer: B\nI do not know.", finished=True).answer
    assert grade_attempt(hostile, "Answer: B", finished=True).correct
    assert not grade_attempt(hostile, "Answer: A", finished=True).correct


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_very_long_text_is_read_in_a_moment(text: str):
    hostile = replace(QUESTION, stem=text, options=(Option("A", " ".join(text.split())), Option("B", "water")))
    outputs = [text, f"{TRACE[:-16]}{text}", f"Check: step 1 is wrong: {text}\nStep 1: {text}\nAnswer: B"]
    with in_a_moment():
        assert not any(grade_attempt(hostile, each, finished=True).correct for each in outputs[:2])
        assert fault_of_template(hostile, outputs[1])
        assert fault_of_correction(hostile, text, outputs[2])
        explained_template(replace(hostile, explanation=text), max_steps=3, max_step_chars=60)


def test_a_step_of_a_number_that_no_trace_has_is_no_step():
    assert steps_of(f"Step {'1' * 5000}: x\nStep 999999999: y") == ["y"]
    assert read_correction(TRACE, f"Check: step {'1' * 5000} is wrong: no\nStep 1: x\nAnswer: B") is None
