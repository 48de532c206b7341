"""The door for questions: every row is checked here once, and what came through is trusted afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medcritical_ray.records import LETTERS, Option, Question

MIN_OPTIONS = 2

UNREADABLE_ROW = "unreadable row"
DUPLICATE_ID = "duplicate id"
AMBIGUOUS_KEY = "key is the number of one option and the text of another"


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that is no usable question. Rows count from 1, without a header and without blank lines."""

    file: str
    row: int
    reason: str


class RowFault(ValueError):
    """Why a row makes no question, in the words of a BadRow's reason."""


@contextmanager
def told_by_field(field: str) -> Iterator[None]:
    """Has what cannot be read of a row be told by the field that it is of."""
    try:
        yield
    except RowFault:
        raise
    except ValueError:
        raise RowFault(of_no_known_form(field)) from None


def of_no_known_form(field: str) -> str:
    return f"{field} of no known form"


def sorted_letters(letters: str) -> str:
    """Letters in the order and form that `Question.key` has: alphabetical, each once."""
    return "".join(sorted(set(letters)))


def one_line_option(letter: str, text: str) -> Option:
    """An option whose text has single spaces for all whitespace, since prompts and answers state it on one line."""
    return Option(letter, " ".join(text.split()))


def fault_of(question: Question) -> str | None:
    """Why a question is unusable, in a few words that stay the same over versions; None for a usable one."""
    return next((reason for reason, applies in _FAULTS if applies(question)), None)


def _letters(question: Question) -> list[str]:
    return [option.letter for option in question.options]


def _is_no_unicode(question: Question) -> bool:
    """JSON may hold halves of surrogate pairs, which no file can be written with."""
    texts = [question.id, question.stem, question.explanation or "", *(option.text for option in question.options)]
    texts += [question.source, *question.labels.keys(), *question.labels.values()]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return True
    return False


_FAULTS: tuple[tuple[str, Callable[[Question], bool]], ...] = (
    (UNREADABLE_ROW, _is_no_unicode),
    ("no stem", lambda question: not question.stem.strip()),
    ("no options", lambda question: not question.options),
    ("too few options", lambda question: len(question.options) < MIN_OPTIONS),
    ("too many options", lambda question: len(question.options) > len(LETTERS)),
    ("option letter not A to J", lambda question: not set(_letters(question)) <= set(LETTERS)),
    ("option letter used twice", lambda question: len(set(_letters(question))) < len(question.options)),
    ("option without text", lambda question: not all(option.text.strip() for option in question.options)),
    ("no key", lambda question: not question.key),
    ("key not among the options", lambda question: not set(question.key) <= set(_letters(question))),
)
"""In the order in which they are told: a row has one reason, the first that applies."""
