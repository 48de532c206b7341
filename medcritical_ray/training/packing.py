"""Pairs whose common beginning is read once (Wang and Hegde, arXiv 2410.20305).

Both texts of a pair begin with the prompt, and often with the same steps. A row holds the chosen sequence, and after it
what the rejected one has of its own; a mask hides either from the other. The log-probabilities are those of two rows,
and the model reads two thirds of the tokens or fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from medcritical_ray.training.examples import DpoExample


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """B pairs in rows of L tokens, for a model that takes masks of each row's own (B, 1, L, L) and positions (B, L).

    `columns` (K) are those in which any row predicts a token of a completion; `predicted_at` has, for each completion
    token of all chosen and then all rejected sequences, its place among the (B * K) predictions.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    columns: Tensor
    predicted_at: Tensor

    def to(self, device: torch.device) -> "Packed":
        return Packed(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            columns=self.columns.to(device),
            predicted_at=self.predicted_at.to(device),
        )


def pack(examples: Sequence[DpoExample], pad_token_id: int) -> Packed:
    chosen = [each.prompt_ids + each.chosen_ids for each in examples]
    rejected = [each.prompt_ids + each.rejected_ids for each in examples]
    shared = [num_shared(*pair) for pair in zip(chosen, rejected, strict=True)]
    lengths = [len(c) + len(r) - s for c, r, s in zip(chosen, rejected, shared, strict=True)]
    width = max(lengths)
    input_ids = torch.full((len(examples), width), pad_token_id)
    position_ids = torch.zeros((len(examples), width), dtype=torch.long)
    attention_mask = torch.ones((width, width), dtype=torch.bool).tril().repeat(len(examples), 1, 1, 1)
    for row, (c, r, s) in enumerate(zip(chosen, rejected, shared, strict=True)):
        input_ids[row, : lengths[row]] = torch.tensor(c + r[s:])
        position_ids[row, : lengths[row]] = torch.tensor([*range(len(c)), *range(s, len(r))])
        attention_mask[row, :, len(c) :, s : len(c)] = False
    # A token is predicted in the column before it, but the rejected text's first own one where the shared tokens end.
    starts = [len(each.prompt_ids) for each in examples]
    of_chosen = [(row, t - 1) for row, c in enumerate(chosen) for t in range(max(starts[row], 1), len(c))]
    of_rejected = [
        (row, t - 1 if t <= shared[row] else t - 1 + len(chosen[row]) - shared[row])
        for row, r in enumerate(rejected)
        for t in range(max(starts[row], 1), len(r))
    ]
    columns = sorted({column for _, column in of_chosen + of_rejected})
    place = {column: index for index, column in enumerate(columns)}
    return Packed(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=attention_mask,
        columns=torch.tensor(columns),
        predicted_at=torch.tensor([row * len(columns) + place[column] for row, column in of_chosen + of_rejected]),
    )


def takes_packed(config: Any) -> bool:
    """Whether a model, by its Hugging Face config, lets each row have a mask of its own, and looks at nothing else.

    Layers that carry a state, or look back over a window alone, would see through it.
    """
    layer_types = getattr(config, "layer_types", None) or []
    is_known = config.model_type in ("qwen2", "qwen3", "llama")
    return is_known and set(layer_types) <= {"full_attention"} and config._attn_implementation == "sdpa"


def num_shared(chosen: list[int], rejected: list[int]) -> int:
    """Tokens that both sequences begin with, but for the last of either."""
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda tokens: tokens[0] == tokens[1], pairs))
