from medcritical_ray import trace as traces
from medcritical_ray.answers import Answer
from medcritical_ray.trace import Correction

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


def test_a_trace_is_read_as_steps_and_an_answer():
    assert traces.steps_of(ATTEMPT) == [
        "fever, cough and chest pain mean pneumonia.",
        "the first choice for pneumonia is aspirin.",
    ]
    assert traces.answer_of(ATTEMPT) == Answer("aspirin", "B")


def test_a_trace_is_written_as_it_is_read():
    steps = traces.steps_of(ATTEMPT)
    thought = "name the condition, then take its first choice."
    assert traces.format_trace(thought, steps, "Answer: aspirin (B)", frozenset({2})) == ATTEMPT


def test_several_letters_are_put_in_order_and_counted_once():
    assert traces.answer_of("Answer: rest; fluids (DAD)") == Answer("rest; fluids", "AD")


def test_only_an_answer_on_the_last_line_counts():
    assert traces.answer_of("Answer: aspirin (B)\nStep 1: on second thoughts, no.") is None
    assert traces.answer_of("Answer: aspirin (B)\nAnswer: amoxicillin (C)") == Answer("amoxicillin", "C")


def test_an_empty_output_has_no_answer():
    assert traces.answer_of("") is None
    assert traces.answer_of(" \n ") is None


def test_a_repair_goes_on_from_the_first_wrong_step():
    assert traces.read_correction(ATTEMPT, REPAIR) == Correction(2, REPAIRED)


def test_the_teachers_correction_is_read_back_as_its_template():
    written = traces.format_correction(REPAIRED, 2, "the first choice for pneumonia is not aspirin but amoxicillin.")
    assert written == REPAIR


def test_keeping_gives_the_attempt_itself():
    assert traces.read_correction(ATTEMPT, "Check: every step is right.") == Correction(None, ATTEMPT)


def test_keeping_and_redoing_at_once_is_no_correction():
    assert traces.read_correction(ATTEMPT, "Check: every step is right.\nAnswer: rest (A)") is None


def test_a_correction_must_change_the_step_that_it_calls_wrong():
    same = "Check: step 2 is wrong: no.\nStep 2 (key): the first choice for pneumonia is aspirin.\nAnswer: rest (A)"
    assert traces.read_correction(ATTEMPT, same) is None


def test_a_correction_must_start_at_the_step_that_it_calls_wrong():
    other = "Check: step 1 is wrong: no.\nStep 2: the first choice for pneumonia is rest.\nAnswer: rest (A)"
    assert traces.read_correction(ATTEMPT, other) is None


def test_a_step_that_the_attempt_does_not_have_cannot_be_wrong():
    beyond = "Check: step 9 is wrong: no.\nStep 9: rest.\nAnswer: rest (A)"
    assert traces.read_correction(ATTEMPT, beyond) is None


def test_only_the_answer_may_be_called_wrong():
    output = "Check: the answer is wrong: it does not follow.\nAnswer: rest (A)"
    correction = traces.read_correction(ATTEMPT, output)
    assert correction is not None
    assert correction.first_wrong_step == 3
    assert traces.steps_of(correction.trace) == traces.steps_of(ATTEMPT)
    assert traces.answer_of(correction.trace) == Answer("rest", "A")


def test_the_first_differing_step_is_counted_from_one():
    assert traces.first_differing_step(ATTEMPT, REPAIRED) == 2
    assert traces.first_differing_step(ATTEMPT, ATTEMPT) == 3


def test_the_part_before_a_step_and_the_part_from_it_make_the_whole():
    assert traces.lines_before_step(ATTEMPT, 2) + traces.lines_from_step(ATTEMPT, 2) == ATTEMPT
    assert traces.lines_from_step(ATTEMPT, 3) == "Answer: aspirin (B)"


def test_a_trace_that_stops_before_its_answer_has_no_answer_line():
    stopped = ATTEMPT.removesuffix("\nAnswer: aspirin (B)")
    assert traces.lines_from_step(stopped, 3) == ""
    assert traces.text_of_step(stopped, 3) == ""
    assert traces.text_of_step(stopped, 2) == stopped.splitlines()[-1]
