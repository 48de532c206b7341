"""Tokens drawn from one number each, which a request's seed and the token's place decide: on the CPU, in vLLM's stead.

vLLM's runner for the CPU draws noise for every word of the vocabulary, request by request if they have seeds (measured:
docs/results.md, "Benchmark"). Its runner for GPUs makes the noise from seed and place itself, in one kernel, and is
left alone.

vLLM is told to decode greedily, and takes the token that is left over of the logits (its interface for logits
processors). Dimensions: B requests, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

from medcritical_ray.config import SamplingConfig

_KEY = "medcritical"


def drawn_with(seed: int, sampling: SamplingConfig) -> dict[str, Any]:
    """The arguments of vLLM's SamplingParams that have a request's tokens drawn here."""
    if sampling.temperature == 0:
        return {"temperature": 0.0}
    return {"temperature": 0.0, "extra_args": {_KEY: (seed, sampling.temperature, sampling.top_p)}}


def uniforms(seeds: Sequence[int], places: Sequence[int]) -> Tensor:
    """A number in [0, 1) for each pair of a seed, below 2**32, and a place: SplitMix64 (Steele, Lea and Flood, 2014) of
    both. Returns float64, of shape (B,)."""
    state = np.array(seeds, dtype=np.uint64) << np.uint64(32) | np.array(places, dtype=np.uint64)
    mixed = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return torch.from_numpy((mixed >> np.uint64(11)) / 2.0**53)


def drawn(logits_BV: Tensor, uniforms_B: Tensor, temperatures_B: Tensor, top_ps_B: Tensor) -> Tensor:
    """The token of each row at which the distribution, summed up, passes the row's number. Returns tokens_B."""
    scaled_BV = logits_BV / temperatures_B[:, None]
    if bool((top_ps_B < 1).any()):
        scaled_BV = apply_top_k_top_p(scaled_BV, None, top_ps_B)
    summed_BV = scaled_BV.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(summed_BV, (uniforms_B * summed_BV[:, -1])[:, None], right=True)[:, 0]


class _Drawn(NamedTuple):
    """How a request in work is drawn; `written` is vLLM's own list of what it has written so far."""

    seed: int
    temperature: float
    top_p: float
    written: list[int]


class Draws(LogitsProcessor):
    """Leaves of the logits of each request that has `drawn_with` the token that is drawn for it."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._drawn: dict[int, _Drawn] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._drawn, batch_update, _drawn_of)

    def apply(self, logits: Tensor) -> Tensor:
        if not self._drawn:
            return logits
        rows, requests = list(self._drawn), list(self._drawn.values())
        tokens = drawn(
            logits[rows],
            uniforms([each.seed for each in requests], [len(each.written) for each in requests]),
            torch.tensor([each.temperature for each in requests]),
            torch.tensor([each.top_p for each in requests]),
        )
        logits[rows] = -torch.inf
        logits[rows, tokens] = 0.0
        return logits


def _drawn_of(params: SamplingParams, _: list[int] | None, written: list[int]) -> _Drawn | None:
    told = (params.extra_args or {}).get(_KEY)
    if told is None:
        return None
    seed, temperature, top_p = told
    return _Drawn(seed, temperature, top_p, written)
