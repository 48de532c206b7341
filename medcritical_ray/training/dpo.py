"""Direct preference optimisation on pairs, with an optional likelihood term on the chosen texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medcritical_ray.config import DpoConfig
from medcritical_ray.seeds import uniform
from medcritical_ray.training.batches import Batch, dpo_batch, forward_passes, plan_steps
from medcritical_ray.training.examples import DpoExample, Tokenised
from medcritical_ray.training.loop import (
    LoopSettings,
    StepMetrics,
    StepSize,
    autocast,
    device_of,
    step_size,
    train,
    unwrapped,
)
from medcritical_ray.training.losses import dpo_loss, likelihood_loss, preference_accuracy, preference_margins
from medcritical_ray.training.models import completion_logps
from medcritical_ray.training.workers import steps_per_epoch, sum_over_workers

_CHECKS_PER_EPOCH = 4
_METRICS = ("loss", "accuracy", "ranking_accuracy", "margin", "chosen_logp", "rejected_logp", "chosen_logp_per_token")
"""`accuracy` is the share of pairs that the policy prefers more strongly than the reference does, `ranking_accuracy` of
those in which it gives chosen the higher probability; log-probabilities and margin are means over pairs, in nats, of
what is compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    """How the pairs of one training become batches."""

    pad_token_id: int
    max_tokens_per_forward: int

    def batches(self, examples: Sequence[DpoExample]) -> list[Batch]:
        passes = forward_passes(examples, self.max_tokens_per_forward)
        return [dpo_batch(members, self.pad_token_id) for members in passes]


def with_reference_logps(
    reference: nn.Module, pairs: Tokenised[DpoExample], *, pad_token_id: int, max_tokens_per_forward: int
) -> Tokenised[DpoExample]:
    """The pairs with the reference's log-probabilities, ordered by length.

    Where the reference is the policy that training starts from, give that one, before training.
    """
    reference.eval()
    scored: list[DpoExample] = []
    for members in forward_passes(pairs.examples, max_tokens_per_forward):
        device = device_of(reference)
        with torch.inference_mode(), autocast(device):
            batch = dpo_batch(members, pad_token_id).to(device)
            chosen, rejected = _compared(completion_logps(reference, batch), batch)
        logps = zip(chosen.tolist(), rejected.tolist(), strict=True)
        scored += [replace(example, reference_logps=pair) for example, pair in zip(members, logps, strict=True)]
    return replace(pairs, examples=scored)


def dpo(
    model: nn.Module,
    pairs: Tokenised[DpoExample],
    config: DpoConfig,
    *,
    pad_token_id: int,
    max_tokens_per_forward: int,
    seed: int,
    on_step: Callable[[StepMetrics], None],
) -> dict[str, Any]:
    """Trains `model` in place on this worker's pairs (see `with_reference_logps`), and returns figures over all
    workers.

    Preference accuracy, margin and the chosen texts' log-probability are measured on held-out pairs before and after.
    Which pairs those are depends on the seed and the question alone. Raises Diverged if the loss is not finite,
    UserError if a worker has no pair.
    """
    torch.manual_seed(seed)
    device = device_of(model)
    held_out, examples = _hold_out(pairs.examples, config.held_out_share, seed)
    num_steps = steps_per_epoch(len(examples), config.batch_size, "dpo", device)
    lengths = [example.length_tokens for example in examples]
    layout = _Pairs(pad_token_id=pad_token_id, max_tokens_per_forward=max_tokens_per_forward)

    def steps_of_epoch(epoch: int) -> Iterator[list[Batch]]:
        for step in plan_steps(lengths, num_steps, seed=seed, epoch=epoch):
            yield layout.batches([examples[index] for index in step])

    def measure() -> StepMetrics | None:
        return _measure(model, layout.batches(held_out), config)

    before = measure()
    watch = _HeldOutWatch(measure, before, max(1, num_steps // _CHECKS_PER_EPOCH), enabled=config.early_stop)

    def after_step(metrics: StepMetrics) -> bool:
        on_step(metrics)
        return watch.says_stop(int(metrics["step"]))

    settings = LoopSettings(
        config_part="dpo",
        num_epochs=config.num_epochs,
        num_steps_per_epoch=num_steps,
        learning_rate=config.learning_rate,
    )
    history = train(model, steps_of_epoch, partial(_dpo_loss, config=config), settings, after_step)
    return {
        **_counts(pairs, examples, len(history) / num_steps, device),
        "num_steps": len(history),
        "stopped_early": len(history) < num_steps * config.num_epochs,
        "held_out": {"before": before, "after": measure()},
        "first_step": history[0],
        "last_step": history[-1],
    }


def _counts(
    pairs: Tokenised[DpoExample], trained: list[DpoExample], num_epochs: float, device: torch.device
) -> dict[str, int]:
    """Over all workers. Tokens count as often as they were trained on."""
    num_held_out = len(pairs.examples) - len(trained)
    num_tokens = sum(example.num_tokens for example in trained) * num_epochs
    sums = sum_over_workers([len(trained), num_held_out, pairs.num_too_long, num_tokens], device)
    names = ("num_pairs", "num_held_out", "num_too_long", "num_tokens")
    return {name: round(value) for name, value in zip(names, sums, strict=True)}


class _HeldOutWatch:
    """Compares the held-out loss with that of the check before, a few times per epoch."""

    def __init__(
        self, measure: Callable[[], StepMetrics | None], before: StepMetrics | None, every: int, *, enabled: bool
    ) -> None:
        self._measure = measure
        self._last_loss = before["loss"] if before else 0.0
        self._every = every
        self._enabled = enabled and before is not None

    def says_stop(self, step: int) -> bool:
        if not self._enabled or step % self._every:
            return False
        now = self._measure()
        assert now is not None  # the same pairs as before
        rises = now["loss"] > self._last_loss
        self._last_loss = now["loss"]
        return rises


def _hold_out(examples: list[DpoExample], share: float, seed: int) -> tuple[list[DpoExample], list[DpoExample]]:
    """All pairs of a question are held out, or none, on whichever worker they are."""
    held_out = [example for example in examples if uniform("held out", seed, example.question_id) < share]
    trained = [example for example in examples if uniform("held out", seed, example.question_id) >= share]
    return held_out, trained


def _measure(model: nn.Module, batches: list[Batch], config: DpoConfig) -> StepMetrics | None:
    """The loss and metrics over the held-out pairs of all workers; None if there are none."""
    device = device_of(model)
    size = step_size(batches, device)
    if size.num_examples == 0:
        return None
    was_training = model.training
    model.eval()
    sums = dict.fromkeys(_METRICS, 0.0)
    for batch in batches:
        with torch.no_grad(), autocast(device):
            loss, metrics = _dpo_loss(unwrapped(model), batch.to(device), size, config)
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] += value.item()
    model.train(was_training)
    return dict(zip(sums, sum_over_workers(list(sums.values()), device), strict=True))


def _compared(logps_BT: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The log-probabilities of chosen and rejected as far as they are compared, of shape (B,) each."""
    chosen_B, rejected_B = (logps_BT * batch.compared_mask).sum(dim=1).chunk(2)
    return chosen_B, rejected_B


def _dpo_loss(model: nn.Module, batch: Batch, size: StepSize, config: DpoConfig) -> tuple[Tensor, dict[str, Tensor]]:
    logps_BT = completion_logps(model, batch)
    chosen_B, rejected_B = _compared(logps_BT, batch)
    logps = (chosen_B, rejected_B, batch.reference_logps[0], batch.reference_logps[1])
    loss = config.preference_weight * dpo_loss(*logps, config.beta).sum() / size.num_examples
    if config.likelihood_weight:
        loss = loss + config.likelihood_weight * likelihood_loss(logps_BT[: len(chosen_B)].sum(dim=1), size.num_tokens)
    margins_B = preference_margins(*logps)
    ranks_right_B = preference_accuracy(chosen_B - rejected_B)
    num_chosen_tokens_B = batch.compared_mask[: len(chosen_B)].sum(dim=1).clamp(min=1)
    per_pair = (
        *(preference_accuracy(margins_B), ranks_right_B, margins_B, chosen_B, rejected_B),
        chosen_B / num_chosen_tokens_B,
    )
    return loss, {name: values.sum() / size.num_examples for name, values in zip(_METRICS[1:], per_pair, strict=True)}
