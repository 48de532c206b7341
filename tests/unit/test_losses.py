"""Losses against values worked out by hand."""

import math

import pytest
import torch

from medcritical_ray.training.losses import (
    dpo_loss,
    likelihood_loss,
    preference_accuracy,
    preference_margins,
    token_logps,
)


def test_only_the_tokens_of_a_completion_have_log_probabilities():
    # Two tokens exist. With logits (0, log 3) they have the probabilities 1/4 and 3/4; with (0, 0) one half each.
    quarter, half = [0.0, math.log(3.0)], [0.0, 0.0]
    logits_BTV = torch.tensor([[half, quarter, half, quarter], [quarter, quarter, half, half]])
    input_ids_BT = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]])
    # Row 0: prompt of two tokens, then 1 and 0. Row 1: prompt of one token, then 0 and 1, then padding.
    completion_mask_BT = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])

    logps_BT = token_logps(logits_BTV, input_ids_BT, completion_mask_BT)

    # Row 0: token 1 after position 1 has 3/4, token 0 after position 2 has 1/2.
    # Row 1: token 0 after position 0 has 1/4, token 1 after position 1 has 3/4.
    assert logps_BT[0].tolist() == pytest.approx([0, 0, math.log(3 / 4), math.log(1 / 2)])
    assert logps_BT[1].tolist() == pytest.approx([0, math.log(1 / 4), math.log(3 / 4), 0])


def test_log_probabilities_are_float32_whatever_the_logits_are():
    logits_BTV = torch.zeros(1, 3, 5, dtype=torch.bfloat16)
    logps_BT = token_logps(logits_BTV, torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 1]]))
    assert logps_BT.dtype == torch.float32
    assert logps_BT[0].tolist() == pytest.approx([0, -math.log(5), -math.log(5)])


def test_the_dpo_loss_is_the_one_worked_out_by_hand():
    # Chosen gained 1 nat over the reference, rejected lost 2: the margin is 3.
    # With beta = 0.5: -log sigmoid(1.5) = log(1 + exp(-1.5)) = log(1.2231302) = 0.2014133.
    losses_B = dpo_loss(torch.tensor([-9.0]), torch.tensor([-14.0]), torch.tensor([-10.0]), torch.tensor([-12.0]), 0.5)
    assert losses_B.tolist() == pytest.approx([0.2014133], abs=1e-6)


def test_a_policy_that_equals_its_reference_has_a_loss_of_log_two():
    logps_B = torch.tensor([-3.0, -7.0])
    losses_B = dpo_loss(logps_B, logps_B - 1, logps_B, logps_B - 1, beta=0.1)
    assert losses_B.tolist() == pytest.approx([math.log(2)] * 2)


def test_the_gradient_of_the_dpo_loss_is_the_one_worked_out_by_hand():
    # d/dx -log sigmoid(beta * x) = -beta * sigmoid(-beta * x): at margin 3 and beta 0.5, -0.5 * sigmoid(-1.5)
    # = -0.5 * 0.1824255 = -0.0912128 for chosen, and the opposite for rejected.
    chosen_B = torch.tensor([-9.0], requires_grad=True)
    rejected_B = torch.tensor([-14.0], requires_grad=True)
    dpo_loss(chosen_B, rejected_B, torch.tensor([-10.0]), torch.tensor([-12.0]), 0.5).sum().backward()
    assert chosen_B.grad is not None
    assert rejected_B.grad is not None
    assert chosen_B.grad.item() == pytest.approx(-0.0912128, abs=1e-6)
    assert rejected_B.grad.item() == pytest.approx(0.0912128, abs=1e-6)


def test_the_likelihood_loss_is_a_mean_over_the_tokens_of_the_whole_batch():
    # 12 nats over 2 tokens and 4 nats over 6: 16 / 8 = 2, where a mean over sequences would give (6 + 2/3) / 2.
    assert likelihood_loss(torch.tensor([-12.0, -4.0]), num_tokens=8).item() == 2.0


def test_margins_and_accuracy_compare_the_policy_with_its_reference():
    zeros_B = torch.zeros(3)
    margins_B = preference_margins(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0]), zeros_B, zeros_B)
    assert margins_B.tolist() == [2.0, -3.0, 0.0]
    assert preference_accuracy(margins_B).tolist() == [1.0, 0.0, 0.5]
