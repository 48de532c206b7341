"""Which examples make a step, and their tensors: deterministic by seed, with little padding and bounded memory."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from medcritical_ray.training.examples import DpoExample, Example, SftExample
from medcritical_ray.training.packing import Packed, pack

_STEPS_PER_GROUP = 8
_NO_LABEL = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Tensors of one forward pass over B examples, as TRL's collators make them; for DPO, B chosen, then B rejected.

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
    rows = [
        {
            "input_ids": example.prompt_ids + example.completion_ids,
            "labels": [_NO_LABEL] * len(example.prompt_ids) + example.completion_ids,
        }
        for example in examples
    ]
    tensors = DataCollatorForLanguageModeling(pad_token_id)(rows)
    completion_mask = (tensors["labels"] != _NO_LABEL).long()
    return _batch({**tensors, "completion_mask": completion_mask}, completion_mask, torch.empty(0), len(examples))


def dpo_batch(examples: Sequence[DpoExample], pad_token_id: int) -> Batch:
    rows = [
        {"prompt_ids": example.prompt_ids, "chosen_ids": example.chosen_ids, "rejected_ids": example.rejected_ids}
        for example in examples
    ]
    tensors = DataCollatorForPreference(pad_token_id)(rows)
    known = [example.reference_logps for example in examples if example.reference_logps]
    compared_mask = tensors["completion_mask"].clone()
    for row, example in zip(compared_mask[: len(examples)], examples, strict=True):
        end = len(example.prompt_ids) + len(example.chosen_ids)
        row[end - example.num_rest_tokens : end] = 0
    batch = _batch(tensors, compared_mask, torch.tensor(list(zip(*known, strict=True))), len(examples))
    return replace(batch, packed=pack(examples, pad_token_id))


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


def _batch(tensors: Mapping[str, Tensor], compared_mask: Tensor, reference_logps: Tensor, num_examples: int) -> Batch:
    return Batch(
        input_ids=tensors["input_ids"],
        attention_mask=tensors["attention_mask"],
        completion_mask=tensors["completion_mask"],
        compared_mask=compared_mask,
        reference_logps=reference_logps,
        num_examples=num_examples,
        # The first token of a sequence has nothing before it, and no log-probability.
        num_tokens=int(tensors["completion_mask"][:num_examples, 1:].sum()),
    )
