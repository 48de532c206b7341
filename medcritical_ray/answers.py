"""Answer lines: which lines state an answer, and what they state.

An answer line begins with an answer mark and a colon, in English or Chinese (【答案】 needs no colon), and then states
letters, or an option's text and its letter, and nothing else. All of these answer C:

    Answer: amoxicillin (C)      **Answer: C**      The correct answer is: C. amoxicillin
    答案：阿莫西林（Ｃ）。            【答案】C          正确答案是：C、阿莫西林

What is ambiguous is no answer: small letters, which may be words; "A or C"; "not A but C"; an option beside another;
prose that tells the answer without a colon. Emphasis, width of characters, kind of brackets and final punctuation count
for nothing.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

_MARK = re.compile(
    r"(?:(?:the )?(?:final |correct )?answer(?: is)?|(?:最终|正确)?答案[是为]?) ?:|\((?:最终|正确)?答案\) ?:?",
    re.IGNORECASE,
)
_LETTERS = re.compile(
    r"[A-J](?:[A-J ,、;&+和与及]|and)*"  # AC; A, C; A and C
    r"|(?:\(+[A-J][A-J ,、;]*\)+(?:[ ,、;&+和与及]|and)*)+"  # (C); (A)(C); ((C))
)
_TEXT_AND_LETTERS = (
    re.compile(r"(?P<text>.*?) ?\((?P<letters>[A-J][A-J ,、;]*)\)"),
    re.compile(r"\(?(?P<letters>[A-J]+)(?:\)|[.、:]) ?(?P<text>.+)"),
    re.compile(r"(?P<letters>[A-J]+) ?\((?P<text>.+)\)"),
)
_EMPHASIS = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\b|[*_`$\"“”\\]")
_BRACKETS = str.maketrans("[]{}【】", "()()()")
_END = " .。!,;"
_LETTER_ALONE = re.compile(r"(?<![\w°])[A-J]+(?!\w)")  # that of 37 °C is a unit's
_TAKES_BACK = re.compile(r"\b(?:not|nor|neither|either|or|but|except)\b|不是|并非|而[是非]|或|除", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer line states: the option's text (several joined by "; ", none if empty), letters in order."""

    text: str
    letters: str
    stated: str = field(default="", compare=False)
    """All that stands behind the mark, as it was read."""


def is_answer_line(line: str) -> bool:
    """Whether a line begins with an answer mark, whatever it states."""
    return _MARK.match(_line(line)) is not None


def read_answer(line: str) -> Answer | None:
    """What a line states if it is an answer line of one of the forms above."""
    line = _line(line)
    mark = _MARK.match(line)
    stated = line[mark.end() :].strip(_END) if mark else ""
    if _LETTERS.fullmatch(stated):
        return Answer("", _in_order(stated))
    matches = (form.fullmatch(stated) for form in _TEXT_AND_LETTERS)
    match = next(filter(None, matches), None)
    return Answer(match["text"], _in_order(match["letters"]), stated) if match else None


def is_ambiguous(answer: Answer, texts: Iterable[str]) -> bool:
    """Whether an answer says more than its letters, by the texts of the question's options: names another letter beside
    them, or takes back or leaves open what they say, as "not amoxicillin (C)" does.

    Words and letters within an option's text are its own: "hepatitis (B) vaccine (C)" is clear if it is an option. And
    so "C. difficile" and "blood count (CBC)" are options without their letters.
    """
    plain_texts = [plain_text for text in texts if (plain_text := plain(text).strip(_END))]
    if answer.stated in plain_texts:
        return True
    beside = _without(plain_texts, answer.text)
    letters = set("".join(_LETTER_ALONE.findall(beside)))
    return bool(_TAKES_BACK.search(beside)) or not letters <= set(answer.letters)


def agrees(answer: Answer, texts: Iterable[str]) -> bool:
    """Whether the text that an answer states is that of the given options, spaces and case aside."""
    return _key("; ".join(texts)) == _key(answer.text)


def plain(text: str) -> str:
    """Text in half width, with round brackets and single spaces, without marks of emphasis."""
    text = _EMPHASIS.sub("", unicodedata.normalize("NFKC", text)).translate(_BRACKETS)
    return " ".join(text.split())


def _line(line: str) -> str:
    """A list's dash stays: it begins an option, whose text may be anything."""
    return plain(line).lstrip("#> ")


def _without(options: list[str], text: str) -> str:
    """Text in which a space stands for each option. Only those that it holds are in the pattern: to compile one for all
    takes longer than all else that is done with an answer."""
    named = [option for option in sorted(options, key=len, reverse=True) if option.casefold() in text.casefold()]
    if not named:
        return text
    return re.sub(rf"(?<![a-z])(?:{'|'.join(map(re.escape, named))})(?![a-z])", " ", text, flags=re.IGNORECASE)


def _in_order(letters: str) -> str:
    return "".join(sorted(set(re.findall("[A-J]", letters))))


def _key(text: str) -> str:
    return plain(text).replace(" ", "").strip(_END).casefold()
