"""SFT on the same demonstrations, in the same steps, beside TRL's SFTTrainer."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import beside_trl, clinic
from jobs.benchmarks.figures import Figure, Goal, in_turn

if TYPE_CHECKING:
    from medcritical_ray.config import SftConfig

GOAL = Goal(name="SFT", unit="tokens/s", peer="TRL's SFTTrainer", target=1.0)
SAME_CURVE = Goal(name="difference of any step's loss from TRL's", unit="nats", target=1e-3, reach="at most")
NUM_QUESTIONS = 120
"""With their corrections, four times as many demonstrations: thirty whole steps."""
MAX_TOKENS_PER_FORWARD = 16_384


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """Tokens trained on in a second, padding not counted, from tokenised demonstrations to the trained model."""
    sides = _Sides(scratch)
    ours, peer = in_turn(repeats, sides.ours, sides.peer)
    curves = zip(sides.our_curves, sides.peer_curves, strict=True)
    furthest = [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in curves]
    return [Figure(goal=GOAL, ours_each=ours, peer_each=peer), Figure(goal=SAME_CURVE, ours_each=furthest)]


class _Sides:
    def __init__(self, scratch: Path) -> None:
        from medcritical_ray.chat import load_tokenizer
        from medcritical_ray.clinic.student import base_student_dir
        from medcritical_ray.training.examples import sft_examples

        self.policy, self.scratch = base_student_dir(), scratch
        self.config: SftConfig = clinic.demo_config(sft={"num_epochs": 1}).sft
        self.tokenizer = load_tokenizer(self.policy)
        self.demonstrations = clinic.demonstrations(NUM_QUESTIONS)
        self.tokenised = sft_examples(self.tokenizer, self.demonstrations, self.config.max_length_tokens)
        assert not self.tokenised.num_too_long
        self.lengths = [example.length_tokens for example in self.tokenised.examples]
        self.our_curves: list[list[float]] = []
        self.peer_curves: list[list[float]] = []

    def ours(self) -> float:
        from medcritical_ray.training.sft import sft

        model, curve = self._model(), []
        started = time.perf_counter()
        sft(
            model,
            self.tokenised,
            self.config,
            pad_token_id=self.tokenizer.pad_token_id,
            max_tokens_per_forward=MAX_TOKENS_PER_FORWARD,
            seed=0,
            on_step=lambda metrics: curve.append(metrics["loss"]),
        )
        seconds = time.perf_counter() - started
        self.our_curves.append(curve)
        return sum(self.lengths) / seconds

    def peer(self) -> float:
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        model, rows = self._model(), self._rows()
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(completion_only_loss=True, **beside_trl.settings(self.scratch, self.config)),
            train_dataset=rows,
            processing_class=self.tokenizer,
            optimizers=beside_trl.optimizers(model, self.config, len(rows) // self.config.batch_size),
        )
        seconds, curve = beside_trl.train(trainer)
        self.peer_curves.append(curve)
        return sum(self.lengths) / seconds

    def _model(self) -> Any:
        import torch

        from medcritical_ray.training.models import load_trainable

        cpu = torch.device("cpu")
        return load_trainable(self.policy, "full", self.config.lora, config_part="sft", device=cpu, seed=0)

    def _rows(self) -> Any:
        from medcritical_ray.chat import render

        rows = [
            {"prompt": render(self.tokenizer, each.prompt), "completion": each.response} for each in self.demonstrations
        ]
        return beside_trl.in_order_of_steps(rows, self.lengths, self.config)
