"""Stage 1's training examples: the teacher's verified templates, and its corrections of synthetic and real mistakes."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator

from medcritical_ray.grading import grade_attempt
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Demonstration, Question, Task, Trajectory
from medcritical_ray.teachers import Teacher, verified_correction, verified_template
from medcritical_ray.trace import KEEP


def template_demonstrations(
    teacher: Teacher, questions: Iterable[Question], drops: Counter[str]
) -> Iterator[Demonstration]:
    """How to solve: one verified template per question."""
    for question in questions:
        template = verified_template(teacher, question, drops)
        if template:
            prompt = solve_prompt(question.unkeyed())
            yield Demonstration(question_id=question.id, task="solve", prompt=prompt, response=template)


def synthetic_corrections(
    teacher: Teacher, questions: Iterable[Question], *, per_question: int, seed: int, drops: Counter[str]
) -> Iterator[Demonstration]:
    """How to correct, before the student has made mistakes of its own: made-up mistakes, and templates to keep."""
    for question in questions:
        rng = random.Random(f"synthetic {seed} {question.id}")
        for _ in range(per_question):
            mistake = teacher.mistake(question.unkeyed(), rng)
            if mistake is None:
                drops["teacher has no mistake"] += 1
            elif grade_attempt(question, mistake, finished=True).correct:
                drops["mistake reaches the key"] += 1
            else:
                yield from _corrections(teacher, question, mistake, ("repair", "check"), drops)
        template = verified_template(teacher, question, Counter())
        if template and per_question:
            yield from _corrections(teacher, question, template, ("check",), drops)


def own_corrections(
    teacher: Teacher,
    questions: Iterable[Question],
    attempts: Iterable[Trajectory],
    *,
    keeps_per_mistake: float,
    max_per_question: int,
    drops: Counter[str],
) -> Iterator[Demonstration]:
    """How to correct the student's own attempts: to repair distinct wrong ones, and to keep every right one.

    A student trained on somebody else's mistakes cannot repair its own (SCoRe, arXiv 2409.12917). The task `check`
    meets right attempts and wrong ones, `keeps_per_mistake` of the former for each of the latter as far as there are
    enough: a student that checked mostly wrong attempts calls right ones wrong, too (measured: 95 % of them).
    """
    by_id = {question.id: question for question in questions}
    num_mistakes: Counter[str] = Counter()
    num_checked = num_keeps = 0
    for attempt in _distinct(attempts, drops):
        question = by_id[attempt.question_id]
        if attempt.correct:
            keeps = list(_corrections(teacher, question, attempt.trace, ("check",), drops))
            num_keeps += len(keeps)
            yield from keeps
        elif num_mistakes[question.id] >= max_per_question:
            drops["mistake over the limit per question"] += 1
        else:
            is_checked = num_checked * keeps_per_mistake <= num_keeps
            tasks: tuple[Task, ...] = ("repair", "check") if is_checked else ("repair",)
            corrections = list(_corrections(teacher, question, attempt.trace, tasks, drops))
            num_mistakes[question.id] += bool(corrections)
            num_checked += bool(corrections) and is_checked
            yield from corrections


def _corrections(
    teacher: Teacher, question: Question, attempt: str, tasks: tuple[Task, ...], drops: Counter[str]
) -> Iterator[Demonstration]:
    correction = verified_correction(teacher, question, attempt, drops)
    if correction is None:
        return
    for task in tasks:
        if task == "repair" and correction == KEEP:
            drops["nothing to repair"] += 1
            continue
        prompt = correction_prompt(question.unkeyed(), attempt, task)
        yield Demonstration(question_id=question.id, task=task, prompt=prompt, response=correction)


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
