"""Floating-point operations that a training needs, counted from the architecture alone."""

from math import prod

from medcritical_ray.planning.architecture import Architecture


def forward_flops(
    architecture: Architecture, *, num_tokens: float, num_predicted: float, mean_context: float, rank: int | None = None
) -> float:
    """Of one forward pass over `num_tokens`, of which the output head is needed for `num_predicted`.

    A multiplication and an addition for each weight of a linear layer and each token (Kaplan et al., arXiv 2001.08361,
    section 2.1), those of an adapter of `rank` among them; and attention's two products, of a token with the
    `mean_context` tokens that it sees.
    """
    weights = sum(map(prod, architecture.linear_layers.values())) * architecture.num_layers
    if rank is not None:
        weights += architecture.num_adapter_parameters(rank, None)
    head = architecture.hidden_size * architecture.vocab_size
    return 2 * weights * num_tokens + 2 * head * num_predicted + _attention(architecture, num_tokens, mean_context)


def training_flops(
    architecture: Architecture, *, num_tokens: float, num_predicted: float, mean_context: float, rank: int | None
) -> float:
    """Of a forward and a backward pass, nothing computed twice: what model FLOPs utilisation counts (Chowdhery et al.,
    arXiv 2204.02311, appendix B).

    The backward pass takes as much again for the gradients of what the layers have been given, and once more for those
    of their weights, which with an adapter of `rank` are its own alone; None trains all weights.
    """
    sizes = {"num_tokens": num_tokens, "num_predicted": num_predicted, "mean_context": mean_context}
    forward = forward_flops(architecture, rank=rank, **sizes)
    if rank is None:
        return 3 * forward
    adapter = 2 * architecture.num_adapter_parameters(rank, None) * num_tokens
    return 2 * forward + adapter + _attention(architecture, num_tokens, mean_context)


def _attention(architecture: Architecture, num_tokens: float, mean_context: float) -> float:
    """Of queries with keys, and of the scores with values, in all layers. Neither has weights, but the backward pass
    takes twice as much for either."""
    width = architecture.num_heads * architecture.head_dim
    return 2 * 2 * width * mean_context * num_tokens * architecture.num_layers
