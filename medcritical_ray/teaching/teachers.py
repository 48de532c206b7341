"""Teachers: who writes the templates and corrections of stage 1, and what of it counts."""

import random
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from medcritical_ray import trace as traces
from medcritical_ray.corrections import format_correction, format_keep
from medcritical_ray.grading import Grade, grade_attempt, grade_correction
from medcritical_ray.language import CHINESE, ENGLISH, language_of
from medcritical_ray.records import Question, Task, UnkeyedQuestion
from medcritical_ray.teaching.reviews import Reviewer, RuleTeacher, Submission

MISSES_KEY = "misses the key"
"""How the fault of a text ends that can be read and is wrong."""
LACKS_TEXT = "does not state the option's text"
"""How the fault of a text ends whose letters are right, without their options' texts beside them."""

_THOUGHT = {
    ENGLISH: "judge the options by what is known of each, then choose.",
    CHINESE: "根据所知逐项判断各选项，再作选择。",
}
"""That of a template made of an explanation."""

_SENTENCE_END = re.compile(r"(?<=[。；;!?！？])|(?<=\.)\s|\n")  # the point of 37.5 ends nothing
_JUDGED_RIGHT = re.compile(r"[（(]([A-J]+)(?:对|正确)|(?<![A-Za-z])([A-J])(?:对|正确)")
_GIVE_AWAY = re.compile(
    r"answer key|(?:given|provided|official|stated) (?:correct )?answer"
    r"|(?:correct|right) answer (?:is |was |has been )?(?:given|provided|stated|known|indicated)"
    r"|according to the (?:key|answer)|given that the (?:correct )?answer"
    r"|参考答案|标准答案|官方答案|答案已|给出的答案|已知答案|根据答案|按照答案",
    re.IGNORECASE,
)
"""Words of one who was told the answer and reasons towards it."""


class Teacher(Reviewer, Protocol):
    """Writes from the question alone, and corrects, too. It never sees a key; None means that it cannot tell."""

    def template(self, question: UnkeyedQuestion) -> str | None: ...

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        """A synthetic wrong attempt, to be corrected."""
        ...


class TemplateTeacher(RuleTeacher):
    """Templates that are there already, by question id: a large model's, or those made of an exam's explanations.

    An attempt that answers as the template does is kept, another redone as the template has it.
    """

    def __init__(self, templates: Mapping[str, str]) -> None:
        self.templates = templates

    def template(self, question: UnkeyedQuestion) -> str | None:
        return self.templates.get(question.id)

    def correction(self, question: UnkeyedQuestion, attempt: str) -> str | None:
        template = self.template(question)
        if template is None:
            return None
        language = language_of(question)
        stated, wanted = traces.answer_of(attempt), traces.answer_of(template)
        if stated and wanted and stated.letters == wanted.letters:
            return format_keep(language)
        step = traces.first_differing_step(template, attempt)
        return format_correction(template, step, language.leads_elsewhere, language)

    def mistake(self, question: UnkeyedQuestion, rng: random.Random) -> str | None:
        """The template with another option for its answer."""
        template = self.template(question)
        answer = traces.answer_of(template) if template else None
        others = [option for option in question.options if answer and option.letter not in answer.letters]
        if template is None or not others:
            return None
        other = rng.choice(others)
        steps = traces.lines_before_step(template, len(traces.steps_of(template)) + 1)
        return steps + traces.format_answer([other.text], other.letter, language_of(question))


def explained_template(question: Question, *, max_steps: int, max_step_chars: int) -> str | None:
    """A template made of an exam's own explanation: the letters that it judges right are its answer.

    Explanations of the Chinese licensing exam judge options one by one ("A对", "B错"); those that judge none right are
    of no use here. The template has at most `max_steps` steps of at most `max_step_chars` characters. The question's
    key is not looked at.
    """
    explanation = question.explanation or ""
    texts = {option.letter: option.text for option in question.options}
    letters = sorted({letter for marks in _JUDGED_RIGHT.findall(explanation) for letter in "".join(marks)})
    sentences = [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(explanation)]
    steps = [sentence[:max_step_chars] for sentence in sentences if sentence][:max_steps]
    if not letters or not steps or not set(letters) <= set(texts):
        return None
    language = language_of(question.unkeyed())
    answer = traces.format_answer([texts[letter] for letter in letters], "".join(letters), language)
    return traces.format_trace(_THOUGHT[language], steps, answer, language=language)


def fault_of_template(question: Question, template: str) -> str | None:
    """Why a template does not count, in a few words; None if it does."""
    grade = grade_attempt(question, template, finished=True)
    return _fault("template", template, grade, readable=bool(traces.steps_of(template)))


def fault_of_correction(question: Question, attempt: str, correction: str) -> str | None:
    """Why a correction of the attempt does not count, in a few words; None if it does.

    Letters decide whether an attempt is right, and so whether it may be kept.
    """
    grade = grade_correction(question, attempt, correction, finished=True)
    return _fault("correction", correction, grade, kept=grade.first_wrong_step is None)


def submission(question: Question, attempt: str, task: Task) -> Submission:
    """The attempt as it is handed in: without the key."""
    fault = partial(fault_of_correction, question, attempt)
    return Submission(question=question.unkeyed(), attempt=attempt, task=task, fault=fault)


def verified_template(teacher: Teacher, question: Question, drops: Counter[str]) -> str | None:
    """The teacher's template if it reaches the key; else None, with the reason counted in `drops`."""
    template = teacher.template(question.unkeyed())
    if template is None:
        drops["teacher has no template"] += 1
        return None
    fault = fault_of_template(question, template)
    if fault:
        drops[fault] += 1
        return None
    return template


def _fault(what: str, text: str, grade: Grade, *, readable: bool = True, kept: bool = False) -> str | None:
    if _GIVE_AWAY.search(text):
        return f"{what} speaks of a given answer"
    if not readable or not grade.answer:
        return f"{what} cannot be read"
    if not grade.correct:
        return f"{what} {MISSES_KEY}"
    return None if grade.agrees or kept else f"{what} {LACKS_TEXT}"
