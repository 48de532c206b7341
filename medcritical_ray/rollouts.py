"""From questions to graded trajectories: what is asked of the engines, and what their answers become."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medcritical_ray.grading import Grade, grade_attempt, grade_correction
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import Question, Task, Trajectory
from medcritical_ray.seeds import derive_seed, uniform


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One text to write: the continuation of `prompt`, sampled with `seed`."""

    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a policy wrote. `finished` means that it stopped by itself and was not cut off."""

    text: str
    finished: bool
    num_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One trajectory still to be written. `attempt` is the trace to correct, empty for a question to solve."""

    question: Question
    iteration: int
    task: Task
    attempt_number: int
    sample: int
    attempt: str = ""

    def request(self, run_seed: int) -> Request:
        """The request for this turn; its seed depends on the turn's key alone, so that it can be repeated."""
        unkeyed = self.question.unkeyed()
        prompt = solve_prompt(unkeyed) if self.task == "solve" else correction_prompt(unkeyed, self.attempt, self.task)
        seed = derive_seed(run_seed, self.iteration, self.question.id, self.task, self.attempt_number, self.sample)
        return Request(prompt=prompt, seed=seed)

    def trajectory(self, completion: Completion, version: int) -> Trajectory:
        grade = self._grade(completion)
        return Trajectory(
            iteration=self.iteration,
            question_id=self.question.id,
            task=self.task,
            attempt=self.attempt_number,
            sample=self.sample,
            version=version,
            output=completion.text,
            trace=grade.trace,
            finished=completion.finished,
            num_tokens=completion.num_tokens,
            answer=grade.answer,
            agrees=grade.agrees,
            correct=grade.correct,
            first_wrong_step=grade.first_wrong_step,
        )

    def _grade(self, completion: Completion) -> Grade:
        if self.task == "solve":
            return grade_attempt(self.question, completion.text, finished=completion.finished)
        return grade_correction(self.question, self.attempt, completion.text, finished=completion.finished)


def attempt_turns(questions: Iterable[Question], *, iteration: int, num_attempts: int) -> list[Turn]:
    return [
        Turn(question=question, iteration=iteration, task="solve", attempt_number=number, sample=0)
        for question in questions
        for number in range(num_attempts)
    ]


def correction_turns(
    questions: Iterable[Question],
    attempts: Sequence[Trajectory],
    *,
    num_corrections: int,
    checked_share: float,
    wrong_are_checked: bool = False,
) -> list[Turn]:
    """Repairs of every wrong attempt that has an answer, and checks of a share of the right ones, or of all.

    A check's verdict is unknown to the corrector. Which right attempts are checked is drawn by their keys.
    """
    by_id = {question.id: question for question in questions}
    turns: list[Turn] = []
    for attempt in attempts:
        if not attempt.answer:
            continue
        drawn = uniform("checked", attempt.iteration, attempt.question_id, attempt.attempt) < checked_share
        tasks: list[Task] = [] if attempt.correct else ["repair"]
        if drawn if attempt.correct else wrong_are_checked:
            tasks.append("check")
        turns += [
            Turn(
                question=by_id[attempt.question_id],
                iteration=attempt.iteration,
                task=task,
                attempt_number=attempt.attempt,
                sample=sample,
                attempt=attempt.trace,
            )
            for task in tasks
            for sample in range(num_corrections)
        ]
    return turns
