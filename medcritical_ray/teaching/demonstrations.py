"""Stage 1's training examples: the teacher's verified templates, and its corrections of synthetic and real mistakes."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medcritical_ray.grading import grade_attempt
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Demonstration, Question, Task, Trajectory
from medcritical_ray.run.directory import STAGE_ONE
from medcritical_ray.teaching.reviews import Reviewer, Tally, review
from medcritical_ray.teaching.teachers import Teacher, submission, verified_template


class _Lesson(NamedTuple):
    """An attempt to be corrected, and what the student is to learn from that."""

    question: Question
    attempt: str
    tasks: tuple[Task, ...]


def template_demonstrations(teacher: Teacher, questions: Iterable[Question], tally: Tally) -> Iterator[Demonstration]:
    """How to solve: one verified template per question."""
    for question in questions:
        template = verified_template(teacher, question, tally.drops)
        tally.add(template)
        if template:
            prompt = solve_prompt(question.unkeyed())
            yield Demonstration(question_id=question.id, task="solve", prompt=prompt, response=template)


def synthetic_corrections(
    teacher: Teacher, questions: Iterable[Question], *, per_question: int, seed: int, tally: Tally
) -> Iterator[Demonstration]:
    """How to correct, before the student has made mistakes of its own: made-up mistakes, and templates to keep."""
    lessons = [
        lesson for question in questions for lesson in _synthetic(teacher, question, per_question, seed, tally.drops)
    ]
    for lesson, correction in zip(lessons, _reviewed(teacher, lessons, tally), strict=True):
        if correction:
            yield from _demonstrations(lesson, correction)


def _synthetic(
    teacher: Teacher, question: Question, per_question: int, seed: int, drops: Counter[str]
) -> Iterator[_Lesson]:
    rng = random.Random(f"synthetic {seed} {question.id}")
    for _ in range(per_question):
        mistake = teacher.mistake(question.unkeyed(), rng)
        if mistake is None:
            drops["teacher has no mistake"] += 1
        elif grade_attempt(question, mistake, finished=True).correct:
            drops["mistake reaches the key"] += 1
        else:
            yield _Lesson(question, mistake, ("repair", "check"))
    template = verified_template(teacher, question, Counter())
    if template and per_question:
        yield _Lesson(question, template, ("check",))


@dataclass(kw_only=True, slots=True)
class CheckBalance:
    """What the task `check` meets: right attempts and wrong ones, `keeps_per_mistake` of the former for each of the
    latter as far as there are enough. A student that checked mostly wrong attempts calls right ones wrong, too
    (measured: 95 % of them)."""

    keeps_per_mistake: float
    num_mistakes: int = 0
    num_keeps: int = 0

    def takes_mistake(self) -> bool:
        """Whether one more mistake is to be checked; counts it if so."""
        takes = self.num_mistakes * self.keeps_per_mistake <= self.num_keeps
        self.num_mistakes += takes
        return takes


def own_corrections(
    reviewer: Reviewer,
    questions: Iterable[Question],
    attempts: Iterable[Trajectory],
    *,
    balance: CheckBalance,
    max_per_question: int,
    tally: Tally,
) -> Iterator[Demonstration]:
    """How to correct the student's own attempts at some questions: to repair distinct wrong ones, and to keep every
    right one.

    A student trained on somebody else's mistakes cannot repair its own (SCoRe, arXiv 2409.12917).
    """
    by_id = {question.id: question for question in questions}
    shown = list(_distinct(attempts, tally.drops))
    lessons = [
        _Lesson(by_id[each.question_id], each.trace, ("check",) if each.correct else ("repair",)) for each in shown
    ]
    for lesson, correction in _within_limit(reviewer, lessons, max_per_question, tally):
        yield from _demonstrations(lesson, correction)
        if lesson.tasks == ("check",):
            balance.num_keeps += 1
        elif balance.takes_mistake():
            yield from _demonstrations(lesson._replace(tasks=("check",)), correction)


def _within_limit(
    reviewer: Reviewer, lessons: Sequence[_Lesson], max_per_question: int, tally: Tally
) -> Iterator[tuple[_Lesson, str]]:
    """Lessons and their corrections that count, in the lessons' order: of those to check, all; of a question's mistakes
    the first ones, at most `max_per_question`.

    The reviewer is asked in rounds: a mistake is handed in once those before it leave room for its correction.
    """
    due = [position for position, lesson in enumerate(lessons) if lesson.tasks == ("check",)]
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for position, lesson in enumerate(lessons):
        if lesson.tasks == ("repair",):
            waiting[lesson.question.id].append(position)
    room = {lesson.question.id: max_per_question for lesson in lessons}
    corrections: dict[int, str] = {}
    while due := sorted([*due, *_next_mistakes(waiting, room)]):
        for position, correction in zip(due, _reviewed(reviewer, [lessons[p] for p in due], tally), strict=True):
            if correction:
                corrections[position] = correction
                room[lessons[position].question.id] -= lessons[position].tasks == ("repair",)
        due = []
    tally.drops += Counter({"mistake over the limit per question": sum(map(len, waiting.values()))})
    return ((lessons[position], corrections[position]) for position in sorted(corrections))


def _next_mistakes(waiting: Mapping[str, list[int]], room: Mapping[str, int]) -> Iterator[int]:
    """Takes from each question's mistakes as many as may still count."""
    for question_id, positions in waiting.items():
        yield from positions[: room[question_id]]
        del positions[: room[question_id]]


def _reviewed(reviewer: Reviewer, lessons: Sequence[_Lesson], tally: Tally) -> list[str | None]:
    handed_in = [submission(lesson.question, lesson.attempt, lesson.tasks[0]) for lesson in lessons]
    return review(reviewer, handed_in, STAGE_ONE, tally)


def _demonstrations(lesson: _Lesson, correction: str) -> Iterator[Demonstration]:
    for task in lesson.tasks:
        prompt = correction_prompt(lesson.question.unkeyed(), lesson.attempt, task)
        yield Demonstration(question_id=lesson.question.id, task=task, prompt=prompt, response=correction)


def _distinct(attempts: Iterable[Trajectory], drops: Counter[str]) -> Iterator[Trajectory]:
    """Attempts with an answer, each trace of a question once."""
    seen: set[tuple[str, str]] = set()
    for attempt in attempts:
        key = (attempt.question_id, attempt.trace)
        if not attempt.answer:
            drops["attempt unfinished or unreadable"] += 1
        elif key in seen:
            drops["attempt made before"] += 1
        else:
            seen.add(key)
            yield attempt
