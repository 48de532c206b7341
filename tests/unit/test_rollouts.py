from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Question, Trajectory, lettered
from medcritical_ray.rollouts import Completion, Turn, attempt_turns, correction_turns

QUESTIONS = [
    Question(id=f"q{number}", source="hand", stem=f"Which of {number}?", options=lettered(["one", "two"]), key="B")
    for number in range(100)
]
WRONG, RIGHT = "Step 1: so.\nAnswer: one (A)", "Step 1: so.\nAnswer: two (B)"


def attempts_of(questions: list[Question], output: str, *, finished: bool = True) -> list[Trajectory]:
    turns = attempt_turns(questions, iteration=1, num_attempts=1)
    return [turn.trajectory(Completion(text=output, finished=finished, num_tokens=5), version=0) for turn in turns]


def corrections_of(attempts: list[Trajectory], checked_share: float = 0.5) -> list[Turn]:
    return correction_turns(QUESTIONS, attempts, num_corrections=2, checked_share=checked_share)


def test_every_question_is_attempted_k_times_each_with_a_key_of_its_own():
    turns = attempt_turns(QUESTIONS[:2], iteration=3, num_attempts=2)
    keys = [(t.iteration, t.question.id, t.task, t.attempt_number, t.sample) for t in turns]
    assert keys == [
        (3, "q0", "solve", 0, 0),
        (3, "q0", "solve", 1, 0),
        (3, "q1", "solve", 0, 0),
        (3, "q1", "solve", 1, 0),
    ]


def test_no_two_turns_have_the_same_seed():
    attempts = attempt_turns(QUESTIONS, iteration=1, num_attempts=4)
    corrections = corrections_of(attempts_of(QUESTIONS, WRONG))
    seeds = {turn.request(run_seed=0).seed for turn in [*attempts, *corrections]}
    assert len(seeds) == 400 + 200


def test_a_seed_depends_on_the_run_and_the_key_alone():
    turn = Turn(question=QUESTIONS[7], iteration=1, task="repair", attempt_number=0, sample=1, attempt=WRONG)
    same_key = Turn(question=QUESTIONS[7], iteration=1, task="repair", attempt_number=0, sample=1, attempt="other")
    next_sample = Turn(question=QUESTIONS[7], iteration=1, task="repair", attempt_number=0, sample=2, attempt=WRONG)
    assert turn.request(0).seed == same_key.request(0).seed
    assert turn.request(0).seed != next_sample.request(0).seed
    assert turn.request(0).seed != turn.request(1).seed


def test_a_request_to_solve_shows_the_question_without_its_key():
    [turn] = attempt_turns(QUESTIONS[:1], iteration=1, num_attempts=1)
    assert turn.request(0).prompt == solve_prompt(QUESTIONS[0].unkeyed())


def test_a_wrong_attempt_is_repaired_m_times():
    turns = corrections_of(attempts_of(QUESTIONS[:1], WRONG), checked_share=0.0)
    assert [(t.task, t.attempt_number, t.sample, t.attempt) for t in turns] == [
        ("repair", 0, 0, WRONG),
        ("repair", 0, 1, WRONG),
    ]
    assert turns[0].request(0).prompt == correction_prompt(QUESTIONS[0].unkeyed(), WRONG, "repair")


def test_the_given_share_of_right_attempts_is_checked_and_the_same_ones_every_time():
    attempts = attempts_of(QUESTIONS, RIGHT)
    turns = corrections_of(attempts)
    assert {turn.task for turn in turns} == {"check"}
    assert 30 < len({turn.question.id for turn in turns}) < 70
    assert turns == corrections_of(attempts)
    assert corrections_of(attempts, checked_share=0.0) == []
    assert len(corrections_of(attempts, checked_share=1.0)) == 200


def test_the_corrector_is_not_told_the_verdict_of_an_attempt_that_it_checks():
    turns = corrections_of(attempts_of(QUESTIONS[:1], RIGHT), checked_share=1.0)
    assert (
        turns[0]
        .request(0)
        .prompt.endswith("Check the attempt. Keep it if every step is right, else redo it from its first wrong step.")
    )


def test_an_attempt_without_an_answer_is_not_corrected():
    assert corrections_of(attempts_of(QUESTIONS, "I do not know."), checked_share=1.0) == []
    assert corrections_of(attempts_of(QUESTIONS, RIGHT, finished=False), checked_share=1.0) == []


def test_a_trajectory_keeps_what_was_written_beside_the_trace_that_it_stands_for():
    [turn, _] = corrections_of(attempts_of(QUESTIONS[:1], WRONG))
    output = "Check: the answer is wrong: no.\nAnswer: two (B)"
    trajectory = turn.trajectory(Completion(text=output, finished=True, num_tokens=11), version=6)
    assert trajectory == Trajectory(
        iteration=1,
        question_id="q0",
        task="repair",
        attempt=0,
        sample=0,
        version=6,
        output=output,
        trace=RIGHT,
        finished=True,
        num_tokens=11,
        answer="B",
        agrees=True,
        correct=True,
        first_wrong_step=2,
    )
