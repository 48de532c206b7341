"""What a policy is asked, as text, in the question's own language. Prompts are built from records that have no field
for the answer."""

from collections.abc import Sequence

from medcritical_ray.language import LANGUAGES, Language, language_of
from medcritical_ray.records import Option, Task, UnkeyedQuestion


def question_text(question: UnkeyedQuestion) -> str:
    return f"{question.stem}\n{options_text(question.options)}"


def options_text(options: Sequence[Option]) -> str:
    """Options, one a line. Each stands as an answer line states it, text before letter, so that naming the letter of a
    result is copying, which even a tiny model can do."""
    return "\n".join(f"- {option.text} ({option.letter})" for option in options)


def solve_prompt(question: UnkeyedQuestion) -> str:
    return f"{question_text(question)}\n{language_of(question).instructions['solve']}"


def correction_prompt(question: UnkeyedQuestion, attempt: str, task: Task) -> str:
    """The corrector's prompt for an attempt: `repair` if it is known to be wrong, `check` if its verdict is unknown."""
    return _correction_prompt(question_text(question), language_of(question), attempt, task)


def correction_of_solve_prompt(prompt: str, attempt: str, task: Task) -> str:
    """The prompt of `correction_prompt` where there is only a prompt to solve, or a question without an instruction."""
    for language in LANGUAGES:
        text = prompt.rstrip().removesuffix(f"\n{language.instructions['solve']}")
        if text != prompt.rstrip():
            return _correction_prompt(text, language, attempt, task)
    text = prompt.rstrip()
    language = language_of(UnkeyedQuestion(id="", stem=text, options=()))
    return _correction_prompt(text, language, attempt, task)


def _correction_prompt(question: str, language: Language, attempt: str, task: Task) -> str:
    return f"{question}\n{language.attempt}:\n{attempt}\n{language.instructions[task]}"
