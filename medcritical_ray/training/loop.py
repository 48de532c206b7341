"""The training loop of SFT and DPO. It knows no Ray: it runs on one device, or on torch.distributed's workers."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from medcritical_ray.errors import Diverged
from medcritical_ray.training.batches import Batch
from medcritical_ray.training.workers import num_workers, sum_over_workers

StepMetrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class StepSize:
    """Examples and likelihood tokens of one optimizer step, over all forward passes and all workers."""

    num_examples: float
    num_tokens: float


LossFn = Callable[[nn.Module, Batch, StepSize], tuple[Tensor, dict[str, Tensor]]]
"""One forward pass: what it adds to the step's loss, and what it adds to each of the step's metrics. Sums over the
batch are divided by the step's size, so that adding up over passes and workers gives the step's mean, exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """`config_part` ("dpo") is where the learning rate stands in the config, for messages.

    The learning rate rises over the first `warmup_share` of the steps and falls over the last `decay_share`, at most
    over all that the rise leaves.
    """

    config_part: str
    num_epochs: int
    num_steps_per_epoch: int
    learning_rate: float
    warmup_share: float = 0.1
    decay_share: float = 1.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0


def train(
    model: nn.Module,
    steps_of_epoch: Callable[[int], Iterable[Sequence[Batch]]],
    loss_fn: LossFn,
    settings: LoopSettings,
    on_step: Callable[[StepMetrics], bool],
) -> list[StepMetrics]:
    """AdamW with linear warm-up and linear decay, gradients clipped; returns the metrics of every step.

    `steps_of_epoch(epoch)` gives, for each step, the batches of this worker's forward passes: at least one. `on_step`
    is called after each step, and ends the training by returning True, which it must do on all workers or on none.
    Raises Diverged if the loss or its gradient is not finite.
    """
    num_steps = settings.num_epochs * settings.num_steps_per_epoch
    update = _Update(model, settings, num_steps)
    history: list[StepMetrics] = []
    model.train()
    for epoch in range(settings.num_epochs):
        for batches in steps_of_epoch(epoch):
            metrics = {"step": len(history) + 1.0, "num_steps": float(num_steps), "epoch": float(epoch)}
            metrics |= _backward(model, batches, loss_fn)
            metrics |= update(metrics)
            history.append(metrics)
            if on_step(metrics):
                return history
    return history


def learning_rate_factor(step: int, num_warmup_steps: int, num_decay_steps: int, num_steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0: up in equal parts to 1, in the end down likewise.

    No step has a rate of 0, neither the first nor the last, since trainings of a few dozen steps are usual here.
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    return min(1.0, max(0.0, (num_steps - step) / (num_decay_steps + 1)))


def step_size(batches: Sequence[Batch], device: torch.device) -> StepSize:
    """Of these batches and those of all other workers, which must call this, too."""
    counts = [sum(batch.num_examples for batch in batches), sum(batch.num_tokens for batch in batches)]
    return StepSize(*sum_over_workers(counts, device))


def unwrapped(model: nn.Module) -> Any:
    """The model itself, without DDP around it; Any, since a Hugging Face model has methods that nn.Module does not."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU, matrix products in bfloat16; on the CPU nothing: float32 is faster for models small enough for it."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


class _Update:
    """One step of the optimizer and of the learning rate's schedule, from the gradient that the model holds."""

    def __init__(self, model: nn.Module, settings: LoopSettings, num_steps: int) -> None:
        self._settings = settings
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=(0.9, settings.adam_beta2), weight_decay=0.0
        )
        num_warmup_steps = math.ceil(settings.warmup_share * num_steps)
        num_decay_steps = min(math.ceil(settings.decay_share * num_steps), num_steps - num_warmup_steps)
        self._schedule = LambdaLR(
            self._optimizer, lambda step: learning_rate_factor(step, num_warmup_steps, num_decay_steps, num_steps)
        )

    def __call__(self, metrics: StepMetrics) -> StepMetrics:
        learning_rate = float(self._schedule.get_last_lr()[0])
        grad_norm = float(nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm))
        if not (math.isfinite(metrics["loss"]) and math.isfinite(grad_norm)):
            part = self._settings.config_part
            raise Diverged(
                f"{part}: at step {metrics['step']:.0f} the loss is {metrics['loss']:.3g} and its gradient's norm "
                f"{grad_norm:.3g}, at a learning rate of {learning_rate:.3g}: lower {part}.learning_rate"
            )
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": grad_norm, "learning_rate": learning_rate}


def _backward(model: nn.Module, batches: Sequence[Batch], loss_fn: LossFn) -> dict[str, float]:
    """Leaves the step's gradient on every worker; returns the step's loss and metrics over all workers."""
    device = device_of(model)
    size = step_size(batches, device)
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        is_last = index == len(batches) - 1
        with nullcontext() if is_last else _without_gradient_exchange(model):
            with autocast(device):
                loss, metrics = loss_fn(model, batch.to(device), size)
            # DDP averages gradients over workers; the loss is divided by the counts of all of them already.
            (loss * num_workers()).backward()
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
    return dict(zip(sums, sum_over_workers(torch.stack(list(sums.values())).tolist(), device), strict=True))


def _without_gradient_exchange(model: nn.Module) -> AbstractContextManager[Any]:
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
