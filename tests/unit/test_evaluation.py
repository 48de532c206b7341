import json

import pytest

from medcritical_ray.evaluation import AnswerMeter, CorrectorMeter, Evaluator, SampleMeter, by_label
from medcritical_ray.records import Task, Trajectory
from medcritical_ray.statistics import Mean

GUESSES = {"q1": 0.25, "q2": 0.25, "q3": 0.25, "q4": 0.25}


def trajectory(question_id: str, answer: str, *, task: Task = "solve", attempt: int = 0, sample: int = 0) -> Trajectory:
    """One whose right answer is A; an empty answer was cut off."""
    return Trajectory(
        iteration=1,
        question_id=question_id,
        task=task,
        attempt=attempt,
        sample=sample,
        version=0,
        output=answer,
        trace=answer,
        finished=answer != "",
        num_tokens=10 if answer else 30,
        answer=answer,
        agrees=answer == "A",
        correct=answer == "A",
    )


def test_figures_are_of_all_questions_including_the_cut_off_and_the_missing():
    evaluator = Evaluator(GUESSES)
    for attempt in [trajectory("q1", "A"), trajectory("q2", "B"), trajectory("q3", "")]:
        evaluator.update(attempt)
    answers = evaluator.result().answers
    assert (answers.accuracy.k, answers.accuracy.n) == (1, 4)
    assert (answers.parse_rate.k, answers.parse_rate.n) == (2, 4)
    assert (answers.finish_rate.k, answers.finish_rate.n) == (2, 4)
    assert (answers.agreement_rate.k, answers.agreement_rate.n) == (1, 4)
    assert answers.mean_tokens == pytest.approx(50 / 3)


def test_answers_are_told_by_question_and_one_that_is_missing_is_wrong():
    meter = AnswerMeter(GUESSES)
    for attempt in [trajectory("q1", "A"), trajectory("q2", "B"), trajectory("q3", "")]:
        meter.update(attempt)
    assert meter.correct_by_question() == {"q1": True, "q2": False, "q3": False, "q4": False}


def test_a_question_is_answered_once():
    evaluator = Evaluator(GUESSES)
    evaluator.update(trajectory("q1", "A"))
    with pytest.raises(ValueError, match="q1 was not asked or is answered already"):
        evaluator.update(trajectory("q1", "B"))


def test_a_question_that_was_not_asked_is_refused():
    with pytest.raises(ValueError, match="q9 was not asked"):
        Evaluator(GUESSES).update(trajectory("q9", "A"))


def test_pass_at_k_counts_missing_samples_as_wrong():
    meter = SampleMeter(num_questions=2, num_samples=4)
    for sample, answer in enumerate(["A", "B", "B", "A"]):
        meter.update(trajectory("q1", answer, attempt=sample))
    figures = meter.result()
    assert figures.pass_at == {1: pytest.approx(0.25), 2: pytest.approx(5 / 12), 4: pytest.approx(0.5)}
    assert figures.answer_entropy_bits == pytest.approx(0.5)  # one bit for q1, none for q2


def test_the_number_of_samples_is_itself_reported_when_it_is_no_power_of_two():
    assert list(SampleMeter(1, 6).result().pass_at) == [1, 2, 4, 6]


def test_more_samples_than_announced_are_refused():
    meter = SampleMeter(num_questions=1, num_samples=1)
    meter.update(trajectory("q1", "A"))
    with pytest.raises(ValueError, match="more samples than 1 of each of 1 questions"):
        meter.update(trajectory("q1", "A", attempt=1))


def test_the_corrector_is_set_against_guessing():
    meter = CorrectorMeter({"q1": 1 / 4, "q2": 1 / 2})
    meter.update(trajectory("q1", "A", task="repair"), was_correct=False)
    meter.update(trajectory("q2", "B", task="repair"), was_correct=False)
    figures = meter.result()
    assert (figures.wrong_to_right.k, figures.wrong_to_right.n) == (1, 2)
    assert figures.wrong_to_right_by_guessing == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_an_unreadable_check_of_a_right_attempt_breaks_it():
    meter = CorrectorMeter(GUESSES)
    for sample, answer in enumerate(["A", "", "C", "A"]):
        meter.update(trajectory("q1", answer, task="check", sample=sample), was_correct=True)
    figures = meter.result()
    assert (figures.right_to_wrong.k, figures.right_to_wrong.n) == (2, 4)
    assert figures.wrong_to_right.n == 0


def test_the_first_attempt_answers_and_the_others_are_samples():
    evaluator = Evaluator({"q1": 0.25}, num_samples=2)
    for number, answer in enumerate(["A", "B", "B"]):
        evaluator.update(trajectory("q1", answer, attempt=number))
    evaluator.update(trajectory("q1", "A", task="check"))
    evaluation = evaluator.result()
    assert evaluation.answers.accuracy.k == 1
    assert evaluation.samples is not None
    assert evaluation.samples.pass_at == {1: 0.0, 2: 0.0}
    assert evaluation.corrector is not None
    assert evaluation.corrector.right_to_wrong.n == 1


def test_samples_that_were_not_announced_are_refused():
    with pytest.raises(ValueError, match="no samples were announced"):
        Evaluator(GUESSES).update(trajectory("q1", "A", attempt=1))


def test_an_evaluation_becomes_json():
    evaluator = Evaluator({"q1": 0.25}, num_samples=1)
    evaluator.update(trajectory("q1", "A"))
    evaluator.update(trajectory("q1", "A", attempt=1))
    evaluator.update(trajectory("q1", "A", task="check"))
    figures = json.loads(json.dumps(evaluator.result().to_dict()))
    assert list(figures) == [
        "num_questions",
        "accuracy",
        "parse_rate",
        "finish_rate",
        "agreement_rate",
        "mean_tokens",
        "num_samples",
        "mean_accuracy",
        "self_consistency",
        "pass_at",
        "answer_entropy_bits",
        "wrong_to_right",
        "wrong_to_right_by_guessing",
        "right_to_wrong",
        "self_corrected",
        "before_correction",
    ]
    assert figures["accuracy"]["value"] == 1.0
    assert figures["pass_at"] == {"1": 1.0}


def test_what_was_not_measured_is_left_out():
    evaluation = Evaluator(GUESSES).result()
    assert (evaluation.samples, evaluation.corrector) == (None, None)
    assert "wrong_to_right" not in evaluation.to_dict()


def test_one_round_of_self_correction_is_judged_by_checks_of_all_answers():
    evaluator = Evaluator(GUESSES)
    for question_id, answer in (("q1", "A"), ("q2", "A"), ("q3", "B"), ("q4", "B")):
        evaluator.update(trajectory(question_id, answer))
    for question_id, answer in (("q1", "A"), ("q2", "C"), ("q3", "A"), ("q4", "")):
        evaluator.update(trajectory(question_id, answer, task="check"))
    corrector = evaluator.result().corrector
    assert corrector is not None
    assert (corrector.self_corrected.k, corrector.self_corrected.n) == (2, 4)
    assert (corrector.before_correction.k, corrector.before_correction.n) == (2, 4)
    assert (corrector.right_to_wrong.k, corrector.right_to_wrong.n) == (1, 2)
    assert corrector.wrong_to_right.n == 0


def test_samples_vote_and_unread_ones_do_not():
    meter = SampleMeter(num_questions=3, num_samples=4)
    for question_id, answers in (("q1", ["A", "", "", ""]), ("q2", ["B", "A", "A", "B"])):
        for number, answer in enumerate(answers):
            meter.update(trajectory(question_id, answer, attempt=number))
    figures = meter.result()
    # q1 is right by its only vote; in q2 the wrong answer came first; q3 was never answered.
    assert (figures.self_consistency.k, figures.self_consistency.n) == (1, 3)
    assert figures.mean_accuracy.value == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)
    assert figures.mean_accuracy == Mean.of_samples([1 / 4, 2 / 4, 0], 4)


def test_accuracy_is_broken_down_by_label():
    labels = {"q1": {"field": "surgery", "year": "1"}, "q2": {"field": "surgery"}, "q3": {"field": "ethics"}, "q4": {}}
    correct = {"q1": True, "q2": False, "q3": True, "q4": True}
    found = by_label(labels, correct)
    assert {label: {value: (p.k, p.n) for value, p in values.items()} for label, values in found.items()} == {
        "field": {"ethics": (1, 1), "surgery": (1, 2)},
        "year": {"1": (1, 1)},
    }
