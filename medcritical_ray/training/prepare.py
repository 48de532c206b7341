"""A training, made ready: the policy to train, its tokenizer, and the rows in tokens.

prepared = prepare_sft(policy_dir, rows, config, limits, torch.device("cuda"))
figures = prepared.train(prepared.model, print)
save_policy(prepared.model, prepared.tokenizer, out_dir)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medcritical_ray.chat import load_tokenizer
from medcritical_ray.config import DpoConfig, SftConfig
from medcritical_ray.records import Demonstration, PreferencePair
from medcritical_ray.training.dpo import dpo, with_reference_logps
from medcritical_ray.training.examples import dpo_examples, sft_examples
from medcritical_ray.training.loop import StepMetrics
from medcritical_ray.training.models import base_dir, load_frozen, load_trainable, use_gradient_checkpointing
from medcritical_ray.training.sft import sft


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`max_tokens_per_forward` bounds the memory of one forward pass, padding included; on GPUs,
    `gradient_checkpointing` lowers it for another forward pass of computing."""

    seed: int
    max_tokens_per_forward: int
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """`train(model, on_step)` trains `model`, which is this one or DDP's wrapper around it, and returns figures."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Callable[[nn.Module, Callable[[StepMetrics], None]], dict[str, Any]]


def prepare_sft(
    policy_dir: Path, rows: Sequence[Demonstration], config: SftConfig, limits: Limits, device: torch.device
) -> Prepared:
    tokenizer = load_tokenizer(base_dir(policy_dir))
    demonstrations = sft_examples(tokenizer, rows, config.max_length_tokens)
    model = load_trainable(policy_dir, config.method, config.lora, config_part="sft", device=device, seed=limits.seed)
    _checkpoint(model, limits, device)

    def run(module: nn.Module, on_step: Callable[[StepMetrics], None]) -> dict[str, Any]:
        return sft(
            module,
            demonstrations,
            config,
            pad_token_id=_pad_token_id(tokenizer),
            max_tokens_per_forward=limits.max_tokens_per_forward,
            seed=limits.seed,
            on_step=on_step,
        )

    return Prepared(model=model, tokenizer=tokenizer, train=run)


def prepare_dpo(
    policy_dir: Path,
    reference_dir: Path,
    rows: Sequence[PreferencePair],
    config: DpoConfig,
    limits: Limits,
    device: torch.device,
) -> Prepared:
    """The reference's log-probabilities are computed here, once; no reference is held while the policy trains."""
    tokenizer = load_tokenizer(base_dir(policy_dir))
    pad_token_id = _pad_token_id(tokenizer)
    model = load_trainable(policy_dir, config.method, config.lora, config_part="dpo", device=device, seed=limits.seed)
    _checkpoint(model, limits, device)
    is_own_reference = reference_dir.resolve() == policy_dir.resolve()
    pairs = with_reference_logps(
        model if is_own_reference else load_frozen(reference_dir, device),
        dpo_examples(tokenizer, rows, config.max_length_tokens),
        pad_token_id=pad_token_id,
        max_tokens_per_forward=limits.max_tokens_per_forward,
    )

    def run(module: nn.Module, on_step: Callable[[StepMetrics], None]) -> dict[str, Any]:
        return dpo(
            module,
            pairs,
            config,
            pad_token_id=pad_token_id,
            max_tokens_per_forward=limits.max_tokens_per_forward,
            seed=limits.seed,
            on_step=on_step,
        )

    return Prepared(model=model, tokenizer=tokenizer, train=run)


def _checkpoint(model: PreTrainedModel, limits: Limits, device: torch.device) -> None:
    if limits.gradient_checkpointing and device.type == "cuda":
        use_gradient_checkpointing(model)


def _pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Padding is masked, so that any token does for it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
