"""New models of a million parameters or so, which would otherwise be slow to learn to copy."""

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from medcritical_ray.config import FreshStudentConfig

_LAYERS_TO_COPY, _HEADS_TO_COPY = 2, 3
ROPE_THETA = 1_000_000.0
"""Base of the rotary frequencies: of a head's 16, the few fast ones tell positions, and the many slow ones leave room
to match tokens wherever they stand. With 10,000, a student made much as below looked up 27 % of options after 500
steps; with this, 97 % (docs/results.md)."""

_SLOW = 0.006
"""Radians per token below which a rotary frequency counts as slow: within a prompt, it turns by less than a right angle
or so."""


def small_model(
    size: FreshStudentConfig, *, vocab_size: int, max_length_tokens: int, pad_token_id: int, eos_token_id: int
) -> Qwen2ForCausalLM:
    """A Qwen2 with tied embeddings and random weights, but for an induction head if it has room for one.

    An induction head takes two layers and three heads' worth of directions: see `_look_back` and `_copy_what_followed`.
    """
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=max_length_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=0.08 * (128 / size.hidden_size) ** 0.5,  # the usual 0.02 suits models ten times as wide
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=eos_token_id,
    )
    model = Qwen2ForCausalLM(config)
    _quieten(model)
    if size.num_layers >= _LAYERS_TO_COPY and size.num_heads >= _HEADS_TO_COPY:
        basis = torch.linalg.qr(torch.randn(size.hidden_size, size.hidden_size))[0]
        token, token_before, copied = basis.split(size.hidden_size // size.num_heads)[:_HEADS_TO_COPY]
        _look_back(model.model.layers[0].self_attn, token, token_before)
        _copy_what_followed(model.model.layers[1].self_attn, token, token_before, copied)
    return model


@torch.no_grad()
def _look_back(attention: Qwen2Attention, token: Tensor, token_before: Tensor) -> None:
    """Has the first head of the first layer bring to each position what token stands before it.

    The first half of an induction head, the pair of heads that copies what followed a word before (arXiv 2209.11895): a
    student that had to find both halves at once looked up 29 % after 72,000 documents, where chance is 20 %
    (docs/results.md). The head attends by its biases alone, whatever the tokens are: under rotary positions, a query
    bias at angle 0 and a key bias at angle f, for every frequency f, match best at a distance of one token. `token` and
    `token_before` (each of shape head_dim, hidden_size) name the directions that it reads from and writes to.
    """
    head_dim = len(token)
    frequencies = _frequencies(head_dim)
    attention.q_proj.weight[:head_dim] = 0
    attention.k_proj.weight[:head_dim] = 0
    attention.q_proj.bias[:head_dim] = 8.0 * torch.cat([torch.ones(head_dim // 2), torch.zeros(head_dim // 2)])
    attention.k_proj.bias[:head_dim] = 8.0 * torch.cat([frequencies.cos(), frequencies.sin()])
    attention.v_proj.weight[:head_dim] = token
    attention.o_proj.weight[:, :head_dim] = 0.16 * token_before.T  # about as large as the embeddings are there


@torch.no_grad()
def _copy_what_followed(attention: Qwen2Attention, token: Tensor, token_before: Tensor, copied: Tensor) -> None:
    """Has the first head of the second layer attend where the token before is the present one, and copy what is there.

    The second half of the induction head. It matches tokens in the dimensions of slow rotary frequencies alone, which a
    distance turns little. Training sharpens it within a thousand steps.
    """
    head_dim = len(token)
    is_slow = (_frequencies(head_dim) < _SLOW).repeat(2)[:, None]
    attention.q_proj.weight[:head_dim] = 3.5 * token * is_slow
    attention.k_proj.weight[:head_dim] = token_before * is_slow
    attention.v_proj.weight[:head_dim] = copied
    attention.o_proj.weight[:, :head_dim] = 0.5 * copied.T


def _frequencies(head_dim: int) -> Tensor:
    """Of the rotary positions, in radians per token: shape (head_dim / 2), fastest first."""
    return ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)


@torch.no_grad()
def _quieten(model: Qwen2ForCausalLM, factor: float = 0.3) -> None:
    """Scales down what layers add to the residual stream at first, about 1 / sqrt(8) for eight additions (as in GPT-2),
    so that the embeddings, which copying needs, are not drowned."""
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= factor
        layer.mlp.down_proj.weight *= factor
