"""TRL's trainers, given the steps, the optimizer and the schedule that a training of ours has."""

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcritical_ray.config import DpoConfig, SftConfig


def settings(out: Path, config: "DpoConfig | SftConfig") -> dict[str, Any]:
    """One pass over rows that lie in the order of the steps; each step's loss is kept, and no bar is drawn."""
    from datasets import disable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bars()
    disable_progress_bar()
    return {
        "output_dir": str(out),
        "max_length": config.max_length_tokens,
        "per_device_train_batch_size": config.batch_size,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def optimizers(model: "PreTrainedModel", config: "DpoConfig | SftConfig", num_steps: int) -> tuple[Any, Any]:
    """AdamW and its schedule, as `medcritical_ray.training.loop` has them."""
    import torch

    from medcritical_ray.training.loop import learning_rate_factor

    num_warmup_steps = math.ceil(0.1 * num_steps)
    factor = partial(
        learning_rate_factor,
        num_warmup_steps=num_warmup_steps,
        num_decay_steps=num_steps - num_warmup_steps,
        num_steps=num_steps,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def in_order_of_steps(rows: Sequence[dict[str, Any]], lengths: Sequence[int], config: "DpoConfig | SftConfig") -> Any:
    """The rows of every step of every epoch, as `plan_steps` deals them to one worker with seed 0."""
    from datasets import Dataset

    from medcritical_ray.training.batches import plan_steps

    num_steps = len(rows) // config.batch_size
    dealt = [
        rows[index]
        for epoch in range(config.num_epochs)
        for step in plan_steps(lengths, num_steps, seed=0, epoch=epoch)
        for index in step
    ]
    return Dataset.from_list(dealt)


def train(trainer: Any) -> tuple[float, list[float]]:
    """The seconds that the training takes, and the loss of each step."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # it would print each step
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    return seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
