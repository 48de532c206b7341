from medcritical_ray import trace as traces
from medcritical_ray.answers import Answer

ATTEMPT = """\
Thought: name the condition, then take its first choice.
Step 1: fever, cough and chest pain mean pneumonia.
Step 2 (key): the first choice for pneumonia is aspirin.
Answer: aspirin (B)"""

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
