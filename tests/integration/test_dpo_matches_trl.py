"""The losses of DPO and SFT against those that TRL's trainers compute for the same rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from medcritical_ray.chat import load_tokenizer, render
from medcritical_ray.config import DpoConfig, SftConfig
from medcritical_ray.records import Demonstration, PreferencePair
from medcritical_ray.training.prepare import Limits, prepare_dpo, prepare_sft

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "max_length": 64,
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}
TEXTS = [
    (" w1 w2 w3", " w4 w5", " w6"),
    (" w7", " w8 w9 w10 w11", " w12 w13"),
    (" w14 w15 w16 w17", " w18", " w19 w20 w21"),
    (" w22 w23", " w24 w25 w26", " w27 w28 w29 w30"),
]
PAIRS = [
    PreferencePair(
        iteration=1,
        question_id=f"q{number}",
        source="own",
        attempt=0,
        prompt=prompt,
        prefix="",
        chosen=chosen,
        rejected=rejected,
        rest="",
        chosen_version=0,
        rejected_version=0,
        reason="",
    )
    for number, (prompt, chosen, rejected) in enumerate(TEXTS)
]
DEMONSTRATIONS = [
    Demonstration(question_id="q", task="solve", prompt=prompt, response=response) for prompt, response, _ in TEXTS
]


def first_step(metrics_of_steps: list[dict[str, float]]) -> dict[str, float]:
    assert len(metrics_of_steps) == 1
    return metrics_of_steps[0]


def our_dpo_step(policy: Path, reference: Path, likelihood_weight: float, max_tokens: int) -> dict[str, float]:
    """The metrics of one step over all pairs, taken before the weights change."""
    config = DpoConfig(
        method="full",
        beta=0.3,
        likelihood_weight=likelihood_weight,
        batch_size=4,
        held_out_share=0,
        max_length_tokens=64,
    )
    limits = Limits(seed=0, max_tokens_per_forward=max_tokens)
    prepared = prepare_dpo(policy, reference, PAIRS, config, limits, CPU)
    steps: list[dict[str, float]] = []
    prepared.train(prepared.model, steps.append)
    return first_step(steps)


def trl_dpo_loss(policy: Path, reference: Path, likelihood_weight: float, output_dir: Path) -> float:
    tokenizer = load_tokenizer(policy)
    types = ["sigmoid", "sft"] if likelihood_weight else ["sigmoid"]
    trainer = DPOTrainer(
        model=Qwen2ForCausalLM.from_pretrained(policy, dtype=torch.float32),
        ref_model=Qwen2ForCausalLM.from_pretrained(reference, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(output_dir),
            beta=0.3,
            loss_type=types,
            loss_weights=[1.0, likelihood_weight][: len(types)],
            **SETTINGS,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": render(tokenizer, row.prompt), "chosen": row.chosen, "rejected": row.rejected} for row in PAIRS]
        ),
        processing_class=tokenizer,
    )
    (batch,) = trainer.get_train_dataloader()
    with torch.no_grad():
        return trainer.compute_loss(trainer.model.eval(), batch).item()


@pytest.mark.parametrize("likelihood_weight", [0.0, 0.7])
def test_the_dpo_loss_is_that_of_trls_trainer(
    tied_policies: tuple[Path, Path], tmp_path: Path, likelihood_weight: float
):
    policy, reference = tied_policies
    step = our_dpo_step(policy, reference, likelihood_weight, max_tokens=1000)
    assert step["loss"] == pytest.approx(trl_dpo_loss(policy, reference, likelihood_weight, tmp_path), abs=1e-4)


def test_the_step_is_the_same_in_however_many_forward_passes(tied_policies: tuple[Path, Path]):
    policy, reference = tied_policies
    in_one = our_dpo_step(policy, reference, 0.7, max_tokens=1000)
    in_four = our_dpo_step(policy, reference, 0.7, max_tokens=1)
    assert in_four == pytest.approx(in_one, rel=1e-4)


def test_the_sft_loss_is_that_of_trls_trainer(tied_policies: tuple[Path, Path], tmp_path: Path):
    policy = tied_policies[0]
    tokenizer = load_tokenizer(policy)
    rows = [{"prompt": render(tokenizer, row.prompt), "completion": row.response} for row in DEMONSTRATIONS]
    trainer = SFTTrainer(
        model=Qwen2ForCausalLM.from_pretrained(policy, dtype=torch.float32),
        args=SFTConfig(output_dir=str(tmp_path), completion_only_loss=True, **SETTINGS),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    (batch,) = trainer.get_train_dataloader()
    with torch.no_grad():
        expected = trainer.compute_loss(trainer.model.eval(), batch).item()

    config = SftConfig(method="full", num_epochs=1, batch_size=4, max_length_tokens=64)
    prepared = prepare_sft(policy, DEMONSTRATIONS, config, Limits(seed=0, max_tokens_per_forward=1000), CPU)
    steps: list[dict[str, float]] = []
    prepared.train(prepared.model, steps.append)
    assert first_step(steps)["loss"] == pytest.approx(expected, abs=1e-4)
