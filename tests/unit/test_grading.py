from medcritical_ray.grading import grade_attempt, grade_correction, guess_chance
from medcritical_ray.records import Question, lettered

QUESTION = Question(
    id="q1", source="hand", stem="What helps?", options=lettered(["rest", "fluids", "amoxicillin", "aspirin"]), key="C"
)
SEVERAL = Question(id="q2", source="hand", stem="What helps?", options=lettered(["rest", "fluids", "heat"]), key="AC")
ATTEMPT = "Thought: think.\nStep 1: it is pneumonia.\nAnswer: aspirin (D)"


def test_the_keys_letter_is_right_and_its_text_agrees():
    grade = grade_attempt(QUESTION, "Step 1: it is so.\nAnswer: amoxicillin (C)", finished=True)
    assert (grade.answer, grade.agrees, grade.correct) == ("C", True, True)


def test_the_right_letter_beside_another_options_text_does_not_agree():
    grade = grade_attempt(QUESTION, "Answer: aspirin (C)", finished=True)
    assert (grade.answer, grade.agrees, grade.correct) == ("C", False, True)


def test_a_truncated_answer_counts_as_wrong():
    grade = grade_attempt(QUESTION, "Answer: amoxicillin (C)", finished=False)
    assert (grade.answer, grade.correct) == ("", False)


def test_a_letter_that_is_no_option_is_not_an_answer():
    grade = grade_attempt(QUESTION, "Answer: amoxicillin (H)", finished=True)
    assert (grade.answer, grade.correct) == ("", False)


def test_several_letters_must_be_exactly_the_keys():
    assert grade_attempt(SEVERAL, "Answer: rest; heat (AC)", finished=True).correct
    assert not grade_attempt(SEVERAL, "Answer: rest (A)", finished=True).correct
    assert not grade_attempt(SEVERAL, "Answer: rest; fluids; heat (ABC)", finished=True).correct


def test_a_correction_is_graded_by_the_trace_that_it_leads_to():
    output = "Check: the answer is wrong: it does not follow.\nAnswer: amoxicillin (C)"
    grade = grade_correction(QUESTION, ATTEMPT, output, finished=True)
    assert grade.correct
    assert grade.first_wrong_step == 2
    assert grade.trace == "Thought: think.\nStep 1: it is pneumonia.\nAnswer: amoxicillin (C)"


def test_a_correction_that_keeps_a_wrong_attempt_is_wrong():
    grade = grade_correction(QUESTION, ATTEMPT, "Check: every step is right.", finished=True)
    assert (grade.answer, grade.correct, grade.first_wrong_step) == ("D", False, None)


def test_a_truncated_correction_counts_as_wrong():
    output = "Check: the answer is wrong: it does not follow.\nAnswer: amoxicillin (C)"
    assert not grade_correction(QUESTION, ATTEMPT, output, finished=False).correct


def test_a_guess_is_among_the_other_options_or_the_other_sets_of_letters():
    assert guess_chance(QUESTION) == 1 / 3
    # Of the sets {AB, AC, BC, ABC}, one is the wrong answer, and three are left.
    assert guess_chance(SEVERAL) == 1 / 3


def test_line_breaks_of_any_kind_become_one():
    assert grade_attempt(QUESTION, "Step 1: so.\r\nAnswer: amoxicillin (C)", finished=True).trace == (
        "Step 1: so.\nAnswer: amoxicillin (C)"
    )
