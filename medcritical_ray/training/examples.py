"""From records to tokens: what the model reads, and the completion that the loss is taken over.

The prompt is tokenised exactly as the engines do it; a completion is tokenised by itself and ends with the end token,
as a policy writes it after its prompt. A single step, or a text that was cut off, ends with a line break instead. Rows
that are too long are dropped and counted, never cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from medcritical_ray.chat import prompt_token_ids
from medcritical_ray.errors import UserError
from medcritical_ray.literal import written_ids
from medcritical_ray.records import Demonstration, PreferencePair


@dataclass(frozen=True, kw_only=True, slots=True)
class SftExample:
    """A demonstration in tokens."""

    prompt_ids: list[int]
    completion_ids: list[int]

    @property
    def length_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def num_sequences(self) -> int:
        return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DpoExample:
    """A pair in tokens. `length_tokens` is that of the longer of its two sequences, since they are padded together.

    Both completions begin with what they share. The last `num_rest_tokens` of the chosen one are not compared.
    `reference_logps` holds the reference's log-probabilities of (chosen, rejected), once they are known.
    """

    question_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    num_rest_tokens: int = 0
    reference_logps: tuple[float, float] | None = None

    @property
    def length_tokens(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def num_tokens(self) -> int:
        """Of both sequences."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def num_sequences(self) -> int:
        return 2


Example = TypeVar("Example", SftExample, DpoExample)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenised(Generic[Example]):
    """The examples that fit, and how many rows were dropped because they are too long."""

    examples: list[Example]
    num_too_long: int


def sft_examples(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Demonstration], max_length_tokens: int
) -> Tokenised[SftExample]:
    """Raises UserError if the tokenizer has no end token."""
    prompts = prompt_token_ids(tokenizer, [row.prompt for row in rows])
    responses = _completions(tokenizer, [row.response for row in rows])
    examples = [
        SftExample(prompt_ids=prompt, completion_ids=response)
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    return _that_fit(examples, max_length_tokens)


def dpo_examples(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[PreferencePair], max_length_tokens: int
) -> Tokenised[DpoExample]:
    """Raises UserError if the tokenizer has no end token."""
    prompts = prompt_token_ids(tokenizer, [row.prompt for row in rows])
    prefixes = written_ids(tokenizer, [row.prefix for row in rows])
    chosen = _compared(tokenizer, [row.chosen for row in rows])
    rejected = _compared(tokenizer, [row.rejected for row in rows])
    rests = [
        ids if row.rest else [] for row, ids in zip(rows, _completions(tokenizer, [r.rest for r in rows]), strict=True)
    ]
    examples = [
        DpoExample(
            question_id=row.question_id,
            prompt_ids=prompt,
            chosen_ids=prefix + better + rest,
            rejected_ids=prefix + worse,
            num_rest_tokens=len(rest),
        )
        for row, prompt, prefix, better, worse, rest in zip(
            rows, prompts, prefixes, chosen, rejected, rests, strict=True
        )
    ]
    return _that_fit(examples, max_length_tokens)


def _completions(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if tokenizer.eos_token_id is None:
        raise UserError("the student's tokenizer has no end token (eos_token): completions could not end")
    return [[*ids, tokenizer.eos_token_id] for ids in written_ids(tokenizer, texts)]


def _compared(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The completions, but without the end token where a text goes on: it then ends with a line break."""
    completions = _completions(tokenizer, texts)
    return [ids[:-1] if text.endswith("\n") else ids for text, ids in zip(texts, completions, strict=True)]


def _that_fit(examples: list[Example], max_length_tokens: int) -> Tokenised[Example]:
    fitting = [example for example in examples if example.length_tokens <= max_length_tokens]
    return Tokenised(examples=fitting, num_too_long=len(examples) - len(fitting))
