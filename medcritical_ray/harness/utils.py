"""What the tasks beside this file need of Python: the questions, and how an answer is read.

It is copied beside them, and imports nothing of the package that wrote it.
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

_ANSWER = re.compile(
    r"""
    [\#>\ ]*
    (?: (?i: (?:the\ )? (?:final\ |correct\ )? answer (?:\ is)? ) \ ?:      # Answer:  The correct answer is:
      | (?:最终|正确)? 答案 [是为]? \ ?:                                    # 答案：
      | \( (?:最终|正确)? 答案 \) \ ?:?                                     # 【答案】
    )
    [\ .。!,;]*
    (?: (?P<letters> [A-J] (?: [A-J\ ,、;&+和与及] | and )* )               # A, C
      | (?P<letters_in_brackets> (?: \(+ [A-J] [A-J\ ,、;]* \)+ (?: [\ ,、;&+和与及] | and )* )+ )
      | (?P<both>
          (?P<text> .*? ) \ ? \( (?P<letters_after> [A-J] [A-J\ ,、;]* ) \)  # rest; heat (AC)
        | \(? (?P<letters_before> [A-J]+ ) (?: \) | [.、:] ) \ ? (?P<text_after> .+? )  # C. heat
        | (?P<letters_outside> [A-J]+ ) \ ? \( (?P<text_in_brackets> .+ ) \)  # C (heat)
      )
    )
    [\ .。!,;]*
    """,
    re.VERBOSE,
)
_END = " .。!,;"
_TWO_MINDS = re.compile(r"\b(?i:not|nor|neither|either|or|but|except)\b|不是|并非|而是|而非|或|除")


def questions(**_: Any) -> dict[str, Any]:
    """The split `test`: id, prompt, letters and texts of the options, and key of each question."""
    from datasets import Dataset

    with Path(__file__).with_name("questions.jsonl").open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def letters(responses: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The letters that each response to each question answers; none if it cannot be read."""
    return [
        [_answer(text, doc["letters"], doc["texts"]) for text in texts]
        for texts, doc in zip(responses, docs, strict=True)
    ]


def _answer(text: str, options: str, texts: list[str]) -> str:
    """What the last line states, as in "Answer: rest; heat (AC)": alphabetical, and letters of options alone.

    Nothing if it says more than that beside the options' texts: another letter, "not", "or".
    """
    lines = text.strip().splitlines()
    match = _ANSWER.fullmatch(_plain(lines[-1])) if lines else None
    if not match:
        return ""
    parts = match.groupdict(default="")
    answered = re.findall("[A-J]", "".join(part for name, part in parts.items() if name.startswith("letters")))
    stated = "".join(part for name, part in parts.items() if name.startswith("text"))
    told = "".join(sorted(set(answered)))
    if not set(told) <= set(options):
        return ""
    if _key(stated) == _key("; ".join(text for letter, text in zip(options, texts, strict=True) if letter in told)):
        return told
    plain_texts = sorted(filter(None, (_plain(text).strip(_END) for text in texts)), key=len, reverse=True)
    if match["both"] in plain_texts:
        return ""  # an option without its letter, such as "blood count (CBC)"
    own = "|".join(map(re.escape, plain_texts))
    stated = re.sub(rf"(?<![A-Za-z])(?:{own})(?![A-Za-z])", "|", stated, flags=re.IGNORECASE)
    others = set("".join(re.findall(r"(?<![\w°])[A-J]+(?!\w)", stated))) - set(told)
    return "" if others or _TWO_MINDS.search(stated) else told


def _key(text: str) -> str:
    """What texts that say the same have in common."""
    return _plain(text).replace(" ", "").strip(_END).casefold()


def _plain(text: str) -> str:
    """In half width, with round brackets and single spaces, without Markdown and LaTeX around the letters."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\(?:boxed|text|mathrm|mathbf)\b|[*_`$\"“”\\]", "", text)
    return " ".join(re.sub(r"[\]}】]", ")", re.sub(r"[\[{【]", "(", text)).split())
