"""Stage 1's examples, from a teacher that says what each test wants it to say."""

import random
from collections.abc import Sequence

from medcritical_ray.corrections import format_keep
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Demonstration, Question, Trajectory, UnkeyedQuestion, lettered
from medcritical_ray.rollouts import Completion, attempt_turns
from medcritical_ray.teaching.demonstrations import (
    CheckBalance,
    own_corrections,
    synthetic_corrections,
    template_demonstrations,
)
from medcritical_ray.teaching.reviews import Charges, RuleTeacher, Submission, Tally, Written

RIGHT = "Thought: think.\nStep 1: it is two.\nAnswer: two (B)"
WRONG = "Thought: think.\nStep 1: it is one.\nAnswer: one (A)"
OTHER_WRONG = "Thought: think.\nStep 1: it is three.\nAnswer: three (C)"
REDO = "Check: step 1 is wrong: it is not.\nStep 1: it is two.\nAnswer: two (B)"


def question(question_id: str = "q1", key: str = "B") -> Question:
    return Question(id=question_id, source="hand", stem="How many?", options=lettered(["one", "two", "three"]), key=key)


class FakeTeacher(RuleTeacher):
    """Believes that two is right, whatever the key; its synthetic mistake is the one given."""

    def __init__(self, mistake: str | None = WRONG, correction: str | None = REDO) -> None:
        self._mistake = mistake
        self._correction = correction
        self.shown: list[UnkeyedQuestion] = []

    def template(self, question: UnkeyedQuestion) -> str | None:
        self.shown.append(question)
        return RIGHT

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        self.shown.append(question)
        return format_keep() if attempt == RIGHT else self._correction

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        self.shown.append(question)
        return self._mistake


def attempts(outputs: list[str], question_id: str = "q1") -> list[Trajectory]:
    turns = attempt_turns([question(question_id)], iteration=0, num_attempts=len(outputs))
    completions = [Completion(text=output, finished=True, num_tokens=5) for output in outputs]
    return [turn.trajectory(completion, version=-1) for turn, completion in zip(turns, completions, strict=True)]


def own(
    written: list[Trajectory],
    *,
    keeps_per_mistake: float = 1.0,
    max_per_question: int = 9,
    teacher: FakeTeacher | None = None,
) -> tuple[list[tuple[str, str, str]], dict[str, int]]:
    """(task, attempt shown, response) of each demonstration, and what was dropped."""
    tally = Tally()
    questions = [question(question_id) for question_id in ("q1", "q2")]
    made = own_corrections(
        teacher or FakeTeacher(),
        questions,
        written,
        balance=CheckBalance(keeps_per_mistake=keeps_per_mistake),
        max_per_question=max_per_question,
        tally=tally,
    )
    return [(d.task, d.prompt.split("\nAttempt:\n")[1].rpartition("\n")[0], d.response) for d in made], dict(
        tally.drops
    )


def synthetic(
    teacher: FakeTeacher, per_question: int = 1, key: str = "B"
) -> tuple[list[Demonstration], dict[str, int]]:
    tally = Tally()
    made = synthetic_corrections(teacher, [question(key=key)], per_question=per_question, seed=0, tally=tally)
    return list(made), dict(tally.drops)


def test_a_verified_template_shows_how_to_solve():
    tally = Tally()
    assert list(template_demonstrations(FakeTeacher(), [question()], tally)) == [
        Demonstration(question_id="q1", task="solve", prompt=solve_prompt(question().unkeyed()), response=RIGHT)
    ]
    assert tally.drops == {}


def test_a_template_that_misses_the_key_is_dropped_and_counted():
    tally = Tally()
    made = list(template_demonstrations(FakeTeacher(), [question("q1"), question("q2", key="C")], tally))
    assert [demonstration.question_id for demonstration in made] == ["q1"]
    assert tally.drops == {"template misses the key": 1}


def test_the_teacher_is_only_ever_shown_questions_without_a_key():
    teacher = FakeTeacher()
    list(template_demonstrations(teacher, [question()], Tally()))
    synthetic(teacher)
    own(attempts([WRONG]), teacher=teacher)
    assert teacher.shown == [question().unkeyed()] * len(teacher.shown)
    assert not any(hasattr(shown, "key") for shown in teacher.shown)


def test_a_synthetic_mistake_is_repaired_and_checked_and_the_template_is_kept():
    made, drops = synthetic(FakeTeacher())
    unkeyed = question().unkeyed()
    assert [(d.task, d.prompt, d.response) for d in made] == [
        ("repair", correction_prompt(unkeyed, WRONG, "repair"), REDO),
        ("check", correction_prompt(unkeyed, WRONG, "check"), REDO),
        ("check", correction_prompt(unkeyed, RIGHT, "check"), format_keep()),
    ]
    assert drops == {}


def test_no_synthetic_corrections_are_made_where_none_are_wanted():
    assert synthetic(FakeTeacher(), per_question=0) == ([], {})


def test_a_mistake_that_reaches_the_key_is_not_called_wrong():
    lucky = "Step 1: it is one.\nAnswer: two (B)"
    made, drops = synthetic(FakeTeacher(mistake=lucky))
    assert [(d.task, d.response) for d in made] == [("check", format_keep())]
    assert drops == {"mistake reaches the key": 1}


def test_a_teacher_without_a_mistake_is_counted():
    made, drops = synthetic(FakeTeacher(mistake=None), per_question=2)
    assert [(d.task, d.response) for d in made] == [("check", format_keep())]
    assert drops == {"teacher has no mistake": 2}


def test_a_correction_that_misses_the_key_is_dropped_and_counted():
    made, drops = synthetic(FakeTeacher(), key="C")
    assert made == []
    assert drops == {"correction misses the key": 1}


def test_an_own_mistake_is_repaired_and_checked():
    assert own(attempts([WRONG])) == ([("repair", WRONG, REDO), ("check", WRONG, REDO)], {})


def test_the_same_mistake_is_corrected_once():
    made, drops = own(attempts([WRONG, WRONG]))
    assert made == [("repair", WRONG, REDO), ("check", WRONG, REDO)]
    assert drops == {"attempt made before": 1}


def test_the_same_mistake_on_another_question_is_another_mistake():
    made, _ = own([*attempts([WRONG], "q1"), *attempts([WRONG], "q2")])
    assert [task for task, _, _ in made] == ["repair", "check", "repair"]


def test_what_cannot_be_read_is_not_corrected_and_counted():
    assert own(attempts(["I do not know."])) == ([], {"attempt unfinished or unreadable": 1})


def test_no_more_mistakes_of_a_question_are_corrected_than_its_limit():
    made, drops = own([*attempts([WRONG, OTHER_WRONG], "q1"), *attempts([WRONG], "q2")], max_per_question=1)
    assert [attempt for _, attempt, _ in made] == [WRONG, WRONG, WRONG]
    assert drops == {"mistake over the limit per question": 1}


def right_attempts(count: int) -> list[str]:
    """Right ones whose thoughts differ."""
    return [RIGHT.replace("think", f"think {number} times") for number in range(count)]


class KeepingTeacher(FakeTeacher):
    """Keeps whatever ends in its answer."""

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        return format_keep() if attempt.endswith("(B)") else self._correction


def kept(made: list[tuple[str, str, str]]) -> int:
    return sum(response == format_keep() for _, _, response in made)


def checked_mistakes(made: list[tuple[str, str, str]]) -> int:
    return sum(task == "check" and response != format_keep() for task, _, response in made)


def test_mistakes_are_checked_in_proportion_to_the_right_attempts_kept():
    written = attempts([*right_attempts(2), *(WRONG.replace("think", f"guess {n} times") for n in range(6))])
    balanced, _ = own(written, teacher=KeepingTeacher(), max_per_question=9)
    assert (kept(balanced), checked_mistakes(balanced)) == (2, 3)
    assert checked_mistakes(own(written, teacher=KeepingTeacher(), max_per_question=9, keeps_per_mistake=2.0)[0]) == 2
    assert checked_mistakes(own(written, teacher=KeepingTeacher(), max_per_question=9, keeps_per_mistake=0.0)[0]) == 6


def test_every_mistake_is_repaired_however_few_are_checked():
    made, _ = own(attempts([WRONG, OTHER_WRONG]))
    assert [task for task, _, _ in made] == ["repair", "check", "repair"]


def test_an_attempt_without_a_correction_is_dropped_and_counted():
    made, drops = own(attempts([WRONG, OTHER_WRONG]), teacher=KeepingTeacher(correction=None))
    assert made == []
    assert drops == {"teacher has no correction": 2}


class NotingTeacher(KeepingTeacher):
    """Notes what is handed in together; fails on `WRONG`."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[list[tuple[str, str]]] = []

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        return None if attempt == WRONG else super().correction(question, attempt)

    def corrections(self, submissions: Sequence[Submission], iteration: int) -> list[Written]:
        self.rounds.append([(each.task, each.attempt) for each in submissions])
        return super().corrections(submissions, iteration)


def test_a_mistake_is_handed_in_only_if_those_before_it_leave_room():
    teacher = NotingTeacher()
    another = WRONG.replace("think", "guess")
    made, drops = own(attempts([WRONG, RIGHT, OTHER_WRONG, another]), max_per_question=1, teacher=teacher)
    assert teacher.rounds == [[("repair", WRONG), ("check", RIGHT)], [("repair", OTHER_WRONG)]]
    assert [(task, attempt) for task, attempt, _ in made] == [
        ("check", RIGHT),
        ("repair", OTHER_WRONG),
        ("check", OTHER_WRONG),
    ]
    assert drops == {"teacher has no correction": 1, "mistake over the limit per question": 1}


def test_what_a_teacher_was_asked_is_counted():
    tally = Tally()
    list(template_demonstrations(FakeTeacher(), [question()], tally))
    list(synthetic_corrections(FakeTeacher(), [question()], per_question=1, seed=0, tally=tally))
    assert (tally.num_texts, tally.num_chars) == (3, len(RIGHT) + len(REDO) + len(format_keep()))
    assert FakeTeacher().charges(0, tally) == Charges(
        calls=3, prompt_tokens=0, completion_tokens=0, written_chars=tally.num_chars, cost=0.0
    )
