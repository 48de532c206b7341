"""DPO on the same pairs, in the same steps, beside TRL's DPOTrainer with its reference model."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks import beside_trl, clinic
from jobs.benchmarks.figures import Figure, Goal, in_turn

if TYPE_CHECKING:
    from medcritical_ray.config import DpoConfig

GOAL = Goal(name="DPO", unit="pairs/s", peer="TRL's DPOTrainer with its reference model", target=1.5)
SAME_CURVE = Goal(name="difference of any step's loss from TRL's", unit="nats", target=1e-3, reach="at most")
NUM_PAIRS = 256
"""Sixteen whole steps, of each of the demo's two epochs."""
MAX_TOKENS_PER_FORWARD = 16_384
"""The default of `trainers.max_tokens_per_forward`: each step is one forward pass, as TRL's are."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """Pairs trained on in a second, each as often as there are epochs, from tokenised pairs to the trained model; of
    ours, the reference's log-probabilities included."""
    sides = _Sides(scratch)
    ours, peer = in_turn(repeats, sides.ours, sides.peer)
    furthest = [max(abs(a - b) for a, b in zip(*curves, strict=True)) for curves in sides.curves()]
    return [
        Figure(goal=GOAL, ours_each=ours, peer_each=peer),
        Figure(goal=SAME_CURVE, ours_each=furthest),
    ]


class _Sides:
    def __init__(self, scratch: Path) -> None:
        from medcritical_ray.chat import load_tokenizer
        from medcritical_ray.clinic.student import base_student_dir
        from medcritical_ray.training.examples import dpo_examples

        self.policy, self.scratch = base_student_dir(), scratch
        self.config: DpoConfig = clinic.demo_config(dpo={"held_out_share": 0.0}).dpo
        self.tokenizer = load_tokenizer(self.policy)
        self.pairs = clinic.pairs(NUM_PAIRS)
        self.tokenised = dpo_examples(self.tokenizer, self.pairs, self.config.max_length_tokens)
        assert not self.tokenised.num_too_long
        self.our_curves: list[list[float]] = []
        self.peer_curves: list[list[float]] = []

    def curves(self) -> Sequence[tuple[list[float], list[float]]]:
        return list(zip(self.our_curves, self.peer_curves, strict=True))

    def ours(self) -> float:
        from medcritical_ray.training.dpo import dpo, with_reference_logps

        model, curve = self._model(), []
        limits = {"pad_token_id": self.tokenizer.pad_token_id, "max_tokens_per_forward": MAX_TOKENS_PER_FORWARD}
        started = time.perf_counter()
        scored = with_reference_logps(model, self.tokenised, **limits)
        dpo(model, scored, self.config, **limits, seed=0, on_step=lambda metrics: curve.append(metrics["loss"]))
        seconds = time.perf_counter() - started
        self.our_curves.append(curve)
        return self._num_trained / seconds

    def peer(self) -> float:
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        model, rows = self._model(), self._rows()
        trainer = DPOTrainer(
            model=model,
            ref_model=self._model(),
            args=DPOConfig(
                beta=self.config.beta,
                loss_type=["sigmoid", "sft"],
                loss_weights=[self.config.preference_weight, self.config.likelihood_weight],
                **beside_trl.settings(self.scratch, self.config),
            ),
            train_dataset=rows,
            processing_class=self.tokenizer,
            optimizers=beside_trl.optimizers(model, self.config, len(rows) // self.config.batch_size),
        )
        seconds, curve = beside_trl.train(trainer)
        self.peer_curves.append(curve)
        return self._num_trained / seconds

    @property
    def _num_trained(self) -> int:
        return len(self.pairs) * self.config.num_epochs

    def _model(self) -> Any:
        import torch

        from medcritical_ray.training.models import load_trainable

        cpu = torch.device("cpu")
        return load_trainable(self.policy, "full", self.config.lora, config_part="dpo", device=cpu, seed=0)

    def _rows(self) -> Any:
        """The pairs as text. Ours are ordered by length, once the reference has scored them, before steps are dealt."""
        from medcritical_ray.chat import render
        from medcritical_ray.training.batches import forward_passes

        by_id = {pair.question_id: pair for pair in self.pairs}
        passes = forward_passes(self.tokenised.examples, MAX_TOKENS_PER_FORWARD)
        ordered = [example for members in passes for example in members]
        rows = [
            {"prompt": render(self.tokenizer, pair.prompt), "chosen": pair.chosen, "rejected": pair.rejected}
            for pair in (by_id[example.question_id] for example in ordered)
        ]
        return beside_trl.in_order_of_steps(rows, [example.length_tokens for example in ordered], self.config)
