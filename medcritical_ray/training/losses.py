"""Losses and figures of SFT and DPO, as pure functions of log-probabilities.

Letters of dimensions: B examples, T token positions, V vocabulary, R rows and K columns of packed examples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def token_logps(logits_BTV: Tensor, input_ids_BT: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """The log-probability of each completion token given the tokens before, in its place; 0 in all other places.

    The logits at position t score the token at t + 1. Only the completion's positions are raised to float32, in which
    the softmax is taken. The sum of a row is the log-probability of its completion. Returns logps_BT.
    """
    mask_BT = completion_mask_BT[:, 1:].bool()
    logps = -F.cross_entropy(logits_BTV[:, :-1][mask_BT].float(), input_ids_BT[:, 1:][mask_BT], reduction="none")
    logps_BT = torch.zeros(input_ids_BT.shape, dtype=logps.dtype, device=logps.device)
    return logps_BT.masked_scatter(F.pad(mask_BT, (1, 0)), logps)


def logps_at(logits_RKV: Tensor, predicted_at: Tensor, input_ids_BT: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """As `token_logps`, where the tokens are predicted in R rows of K: `predicted_at` has, for each completion token in
    the order of the mask, its place among all R * K."""
    mask_BT = F.pad(completion_mask_BT[:, 1:].bool(), (1, 0))
    logps = -F.cross_entropy(logits_RKV.flatten(0, 1)[predicted_at].float(), input_ids_BT[mask_BT], reduction="none")
    logps_BT = torch.zeros(input_ids_BT.shape, dtype=logps.dtype, device=logps.device)
    return logps_BT.masked_scatter(mask_BT, logps)


def preference_margins(
    policy_chosen_logps_B: Tensor,
    policy_rejected_logps_B: Tensor,
    reference_chosen_logps_B: Tensor,
    reference_rejected_logps_B: Tensor,
) -> Tensor:
    """How much more the policy prefers chosen to rejected than the reference does, in nats.

    (log π(y_w|x) - log π_ref(y_w|x)) - (log π(y_l|x) - log π_ref(y_l|x)), the argument of DPO's sigmoid without beta.
    Returns margins_B.
    """
    chosen_B = policy_chosen_logps_B - reference_chosen_logps_B
    rejected_B = policy_rejected_logps_B - reference_rejected_logps_B
    return chosen_B - rejected_B


def dpo_loss(
    policy_chosen_logps_B: Tensor,
    policy_rejected_logps_B: Tensor,
    reference_chosen_logps_B: Tensor,
    reference_rejected_logps_B: Tensor,
    beta: float,
) -> Tensor:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7): -log sigmoid(beta * margin).

    Returns losses_B, one per pair; the batch's loss is their mean.
    """
    margins_B = preference_margins(
        policy_chosen_logps_B, policy_rejected_logps_B, reference_chosen_logps_B, reference_rejected_logps_B
    )
    return -F.logsigmoid(beta * margins_B)


def likelihood_loss(chosen_logps_B: Tensor, num_tokens: float) -> Tensor:
    """The negative log-likelihood per token of the completions: -sum_B log π(y_w|x) / num_tokens.

    The loss of SFT, and with a weight the second term of iterative RPO (Pang et al., arXiv 2404.19733), normalised by
    the tokens of the whole batch as in TRL's loss type "sft"; the paper divides each sequence by its own length.
    """
    return -chosen_logps_B.sum() / num_tokens


def preference_accuracy(margins_B: Tensor) -> Tensor:
    """1 where the margin favours chosen, 0 where it favours rejected, 1/2 where it favours neither."""
    return (margins_B.sign() + 1) / 2
