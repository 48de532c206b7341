"""Supervised fine-tuning on demonstrations."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medcritical_ray.config import SftConfig
from medcritical_ray.training.batches import Batch, forward_passes, plan_steps, sft_batch
from medcritical_ray.training.examples import SftExample, Tokenised
from medcritical_ray.training.loop import LoopSettings, StepMetrics, StepSize, device_of, train
from medcritical_ray.training.losses import likelihood_loss
from medcritical_ray.training.models import completion_logps
from medcritical_ray.training.workers import steps_per_epoch, sum_over_workers


def sft(
    model: nn.Module,
    demonstrations: Tokenised[SftExample],
    config: SftConfig,
    *,
    pad_token_id: int,
    max_tokens_per_forward: int,
    seed: int,
    on_step: Callable[[StepMetrics], None],
) -> dict[str, Any]:
    """Trains `model` in place on this worker's demonstrations, and returns figures over all workers.

    Raises Diverged if the loss is not finite, UserError if a worker has no demonstration.
    """
    torch.manual_seed(seed)
    examples, device = demonstrations.examples, device_of(model)
    num_steps = steps_per_epoch(len(examples), config.batch_size, "sft", device)
    lengths = [example.length_tokens for example in examples]

    def steps_of_epoch(epoch: int) -> Iterator[list[Batch]]:
        for step in plan_steps(lengths, num_steps, seed=seed, epoch=epoch):
            passes = forward_passes([examples[index] for index in step], max_tokens_per_forward)
            yield [sft_batch(members, pad_token_id) for members in passes]

    def report(metrics: StepMetrics) -> bool:
        on_step(metrics)
        return False

    settings = LoopSettings(
        config_part="sft",
        num_epochs=config.num_epochs,
        num_steps_per_epoch=num_steps,
        learning_rate=config.learning_rate,
    )
    history = train(model, steps_of_epoch, _sft_loss, settings, report)
    counts = sum_over_workers([len(examples), demonstrations.num_too_long, sum(lengths)], device)
    return {
        "num_demonstrations": int(counts[0]),
        "num_too_long": int(counts[1]),
        "num_tokens": int(counts[2]) * config.num_epochs,
        "num_steps": len(history),
        "first_step": history[0],
        "last_step": history[-1],
    }


def _sft_loss(model: nn.Module, batch: Batch, size: StepSize) -> tuple[Tensor, dict[str, Tensor]]:
    return likelihood_loss(completion_logps(model, batch).sum(dim=1), size.num_tokens), {}
