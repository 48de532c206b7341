"""Pairs whose common beginning is read once, against the same pairs in rows of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from medcritical_ray.training.batches import dpo_batch
from medcritical_ray.training.examples import DpoExample
from medcritical_ray.training.models import completion_logps
from medcritical_ray.training.packing import pack, takes_packed

PAIRS = [
    DpoExample(question_id="own", prompt_ids=[5, 6, 7], chosen_ids=[8, 9, 1], rejected_ids=[10, 1]),
    DpoExample(question_id="step", prompt_ids=[5, 6], chosen_ids=[7, 8, 9, 11, 1], rejected_ids=[7, 8, 10]),
    DpoExample(question_id="prefix", prompt_ids=[4], chosen_ids=[9, 1], rejected_ids=[9, 1, 5, 1]),
]


def test_what_both_texts_begin_with_stands_there_once():
    packed = pack(PAIRS[:2], pad_token_id=0)
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 10, 1], [5, 6, 7, 8, 9, 11, 1, 10]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4], [0, 1, 2, 3, 4, 5, 6, 4]]


def test_the_rejected_text_does_not_see_the_chosen_one():
    mask = pack(PAIRS[:1], pad_token_id=0).attention_mask[0, 0].int()
    assert mask[5].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert mask[7].tolist() == [1, 1, 1, 0, 0, 0, 1, 1]


def test_a_packed_pair_has_the_log_probabilities_and_gradients_of_two_rows(tied_policies: tuple[Path, Path]):
    model = Qwen2ForCausalLM.from_pretrained(tied_policies[0], dtype=torch.float32)
    batch = dpo_batch(PAIRS, pad_token_id=0)
    assert takes_packed(model.config)
    found = []
    for each in (batch, replace(batch, packed=None)):
        logps_BT = completion_logps(model, each)
        model.zero_grad()
        (logps_BT * torch.arange(1, logps_BT.numel() + 1).view_as(logps_BT)).sum().backward()
        found.append((logps_BT, [parameter.grad.clone() for parameter in model.parameters()]))
    (packed, packed_gradients), (apart, gradients) = found
    assert torch.equal(packed != 0, batch.completion_mask.bool())
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
    for ours, expected in zip(packed_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("key", "value"), [("layer_types", ["full_attention", "linear_attention"]), ("model_type", "mamba")]
)
def test_a_model_that_could_see_through_the_mask_reads_each_text_by_itself(
    tied_policies: tuple[Path, Path], key: str, value: object
):
    config = Qwen2ForCausalLM.from_pretrained(tied_policies[0], dtype=torch.float32).config
    setattr(config, key, value)
    assert not takes_packed(config)
