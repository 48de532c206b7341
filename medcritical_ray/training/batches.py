"""Which examples make a step, and their tensors: deterministic by seed, with little padding and bounded memory."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medcritical_ray.training.examples import DpoExample, Example, SftExample
from medcritical_ray.training.packing import Packed, pack

_STEPS_PER_GROUP = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Tensors of one forward pass over B examples, padded on the right; for DPO, B chosen, then B rejected.

    `completion_mask` marks the tokens that a likelihood is taken over, and `num_tokens` counts them: for DPO, those of
    the chosen rows. `compared_mask` marks those that a preference is about: all, or all up to the end of a step.
    `reference_logps` is of shape (2, B), for chosen and rejected; empty where they are not known or not needed.
    `packed` holds the same pairs for a model that reads what they share once.
    """

    input_ids: Tensor
    attention_mask: Tensor
    completion_mask: Tensor
    compared_mask: Tensor
    reference_logps: Tensor
    num_examples: int
    num_tokens: int
    packed: Packed | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            completion_mask=self.completion_mask.to(device),
            compared_mask=self.compared_mask.to(device),
            reference_logps=self.reference_logps.to(device),
            num_examples=self.num_examples,
            num_tokens=self.num_tokens,
            packed=self.packed and self.packed.to(device),
        )


def sft_batch(examples: Sequence[SftExample], pad_token_id: int) -> Batch:
    return _batch([(example.prompt_ids, example.completion_ids) for example in examples], pad_token_id)


def dpo_batch(examples: Sequence[DpoExample], pad_token_id: int) -> Batch:
    chosen = [(example.prompt_ids, example.chosen_ids) for example in examples]
    rejected = [(example.prompt_ids, example.rejected_ids) for example in examples]
    batch = _batch(chosen + rejected, pad_token_id)
    compared_mask = batch.completion_mask.clone()
    for row, example in zip(compared_mask[: len(examples)], examples, strict=True):
        end = len(example.prompt_ids) + len(example.chosen_ids)
        row[end - example.num_rest_tokens : end] = 0
    known = [example.reference_logps for example in examples if example.reference_logps]
    return replace(
        batch,
        compared_mask=compared_mask,
        reference_logps=torch.tensor(list(zip(*known, strict=True))),
        num_examples=len(examples),
        num_tokens=_num_predicted(batch.completion_mask[: len(examples)]),
        packed=pack(examples, pad_token_id),
    )


def plan_steps(lengths: Sequence[int], num_steps: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Every example once, in `num_steps` steps of equal size, give or take one; `lengths` is that of each in tokens.

    Examples are shuffled, sorted by length within a few steps' worth, dealt to those steps in that order, and the steps
    are shuffled: steps stay random, and a step's examples are of similar length. Workers that plan shards of their own
    with the same seed and number of steps get steps of similar length at the same time.
    """
    order = list(range(len(lengths)))
    random.Random(f"examples {seed} {epoch}").shuffle(order)
    bounds = [len(order) * step // num_steps for step in range(num_steps + 1)]
    steps: list[list[int]] = []
    for first in range(0, num_steps, _STEPS_PER_GROUP):
        last = min(first + _STEPS_PER_GROUP, num_steps)
        group = sorted(order[bounds[first] : bounds[last]], key=lambda index: lengths[index])
        steps += [group[bounds[step] - bounds[first] : bounds[step + 1] - bounds[first]] for step in range(first, last)]
    random.Random(f"steps {seed} {epoch}").shuffle(steps)
    return steps


def forward_passes(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """The examples, by length, in as many forward passes as it takes to stay below `max_tokens`, padding included.

    An example that is longer by itself gets a pass of its own.
    """
    passes: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: example.length_tokens):
        padded = example.length_tokens * example.num_sequences * (len(passes[-1]) + 1) if passes else 0
        if passes and padded <= max_tokens:
            passes[-1].append(example)
        else:
            passes.append([example])
    return passes


def _batch(rows: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> Batch:
    """Of prompts and completions, each row an example of its own whose completion counts from end to end."""
    ids = [torch.tensor(prompt + completion) for prompt, completion in rows]
    starts = [len(prompt) for prompt, _ in rows]
    completions = [torch.arange(len(row)) >= start for row, start in zip(ids, starts, strict=True)]
    completion_mask = pad_sequence(completions, batch_first=True).long()
    return Batch(
        input_ids=pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        completion_mask=completion_mask,
        compared_mask=completion_mask,
        reference_logps=torch.empty(0),
        num_examples=len(rows),
        num_tokens=_num_predicted(completion_mask),
    )


def _num_predicted(completion_mask: Tensor) -> int:
    """The first token of a sequence has nothing before it, and no log-probability."""
    return int(completion_mask[:, 1:].sum())
