"""Trains the clinic's base student from nothing, and says whether it has learnt to look options up.

That skill comes suddenly, after many steps at the level of chance, and nothing downstream can rise without it: judge a
training by its look-up accuracy, not by its loss.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from medcritical_ray.clinic.corpus import documents, look_ups
from medcritical_ray.clinic.student import build_tokenizer, new_student, sample_texts
from medcritical_ray.clinic.world import World
from medcritical_ray.training.batches import Batch, sft_batch
from medcritical_ray.training.examples import SftExample
from medcritical_ray.training.loop import LoopSettings, StepMetrics, StepSize, train
from medcritical_ray.training.losses import likelihood_loss
from medcritical_ray.training.models import completion_logps, save_policy

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
_DRILL_SHARE = 0.15
_CHUNK = 32
_NUM_LOOK_UPS = 300
_STEPS_BETWEEN_TESTS = 100


def train_base(
    world: World, directory: Path, *, num_steps: int, seed: int, on_step: Callable[[StepMetrics], None]
) -> float:
    """Saves a base student after `num_steps` steps of 32 documents; returns its look-up accuracy, between 0 and 1.

    The first 15 % of the documents are mostly drills. `on_step` is shown each step's metrics, every 100 steps with the
    `look_up_accuracy` so far.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(world, sample_texts(world, seed))
    model = new_student(len(tokenizer))
    corpus = documents(world, seed, num_drills=round(_DRILL_SHARE * num_steps * BATCH_SIZE))

    def report(metrics: StepMetrics) -> bool:
        if metrics["step"] % _STEPS_BETWEEN_TESTS == 0:
            metrics = {**metrics, "look_up_accuracy": look_up_accuracy(model, tokenizer, world, seed + 1)}
        on_step(metrics)
        return False

    settings = LoopSettings(
        config_part="train-base",
        num_epochs=1,
        num_steps_per_epoch=num_steps,
        learning_rate=LEARNING_RATE,
        warmup_share=0.02,
        decay_share=0.5,
        adam_beta2=0.98,
    )
    train(model, lambda epoch: _steps(corpus, tokenizer, num_steps, seed), _loss, settings, report)
    save_policy(model, tokenizer, directory)
    return look_up_accuracy(model, tokenizer, world, seed + 1)


@torch.no_grad()
def look_up_accuracy(model: nn.Module, tokenizer: PreTrainedTokenizerBase, world: World, seed: int) -> float:
    """The share of letters, among those that stand right after a named option, that the model would have written."""
    model.eval()
    texts = list(islice(look_ups(world, seed), _NUM_LOOK_UPS))
    batch = _documents_batch(texts, tokenizer)
    predicted = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].argmax(-1)
    actual = batch.input_ids[:, 1:]
    is_letter = torch.isin(
        actual, torch.tensor(tokenizer.convert_tokens_to_ids([f" ({letter})" for letter in "ABCDE"]))
    )
    after_listing = torch.isin(actual, torch.tensor(tokenizer.convert_tokens_to_ids(["Answer"]))).cumsum(1) > 0
    asked = is_letter & after_listing
    return float((predicted == actual)[asked].float().mean())


def _steps(
    corpus: Iterator[str], tokenizer: PreTrainedTokenizerBase, num_steps: int, seed: int
) -> Iterator[list[Batch]]:
    """Documents in order, sorted by length within a few steps' worth, so that little is padding."""
    rng = random.Random(f"steps {seed}")
    for first in range(0, num_steps, _CHUNK):
        size = min(_CHUNK, num_steps - first)
        texts = sorted(islice(corpus, size * BATCH_SIZE), key=len)
        starts = [step * BATCH_SIZE for step in range(size)]
        rng.shuffle(starts)
        for start in starts:
            yield [_documents_batch(texts[start : start + BATCH_SIZE], tokenizer)]


def _documents_batch(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Batch:
    examples = [
        SftExample(prompt_ids=[], completion_ids=[*ids, tokenizer.eos_token_id]) for ids in tokenizer(texts).input_ids
    ]
    return sft_batch(examples, tokenizer.pad_token_id)


def _loss(model: nn.Module, batch: Batch, size: StepSize) -> tuple[Tensor, dict[str, Tensor]]:
    return likelihood_loss(completion_logps(model, batch).sum(dim=1), size.num_tokens), {}
