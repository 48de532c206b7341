"""SFT and DPO of a tiny random model in this process: full weights, adapters, references, early stopping."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import pairs
from safetensors.torch import load_file

from medcritical_ray.config import DpoConfig, FreshStudentConfig, LoraConfig, SftConfig
from medcritical_ray.errors import Diverged, UserError
from medcritical_ray.language import CHINESE, ENGLISH, Language
from medcritical_ray.prompts import options_text
from medcritical_ray.records import Demonstration, Option, PreferencePair
from medcritical_ray.seeds import uniform
from medcritical_ray.trace import format_answer
from medcritical_ray.training.loop import learning_rate_factor
from medcritical_ray.training.models import base_dir, fresh_student, load_frozen, save_policy
from medcritical_ray.training.prepare import Limits, Prepared, prepare_dpo, prepare_sft
from medcritical_ray.training.tokenizer import train_tokenizer

CPU = torch.device("cpu")
LIMITS = Limits(seed=3, max_tokens_per_forward=512)
LORA = LoraConfig(rank=4, alpha=8)
FULL_DPO = DpoConfig(
    method="full",
    num_epochs=4,
    batch_size=8,
    learning_rate=1e-3,
    held_out_share=0.3,
    max_length_tokens=32,
    early_stop=False,
)
LORA_DPO = FULL_DPO.model_copy(update={"method": "lora", "lora": LORA, "learning_rate": 1e-2})
PAIRS = pairs(45)
DEMONSTRATIONS = [
    Demonstration(question_id=f"q{n}", task="solve", prompt=f" w{n} w{n + 1}", response=f" w{n} w51") for n in range(30)
]


def trained(prepared: Prepared, directory: Path) -> Path:
    prepared.train(prepared.model, lambda _: None)
    save_policy(prepared.model, prepared.tokenizer, directory)
    return directory


def contradicted(pair: PreferencePair) -> PreferencePair:
    return dataclasses.replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def logits(policy: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_frozen(policy, CPU)(input_ids=torch.tensor([[5, 9, 3, 7]])).logits


@pytest.mark.parametrize("config", [FULL_DPO, LORA_DPO], ids=["full", "lora"])
def test_dpo_raises_preference_accuracy_on_pairs_that_it_was_not_trained_on(
    tied_policies: tuple[Path, Path], config: DpoConfig
):
    policy = tied_policies[0]
    prepared = prepare_dpo(policy, policy, PAIRS, config, LIMITS, CPU)
    figures = prepared.train(prepared.model, lambda _: None)
    before, after = figures["held_out"]["before"], figures["held_out"]["after"]
    assert before["margin"] == pytest.approx(0.0, abs=1e-4)
    assert after["margin"] > 1
    assert after["accuracy"] > 0.9
    assert after["ranking_accuracy"] > before["ranking_accuracy"]
    assert after["loss"] < before["loss"]
    assert figures["num_pairs"] + figures["num_held_out"] == 45


def test_a_likelihood_term_keeps_the_chosen_texts_likely(tied_policies: tuple[Path, Path]):
    policy = tied_policies[0]
    config = FULL_DPO.model_copy(update={"likelihood_weight": 1.0})
    prepared = prepare_dpo(policy, policy, PAIRS, config, LIMITS, CPU)
    held_out = prepared.train(prepared.model, lambda _: None)["held_out"]
    assert held_out["after"]["chosen_logp"] > held_out["before"]["chosen_logp"]


def test_the_initial_policy_can_be_the_reference(tied_policies: tuple[Path, Path]):
    policy, initial = tied_policies
    prepared = prepare_dpo(policy, initial, PAIRS, FULL_DPO, LIMITS, CPU)
    before = prepared.train(prepared.model, lambda _: None)["held_out"]["before"]
    assert abs(before["margin"]) > 0.1


def test_training_stops_when_the_held_out_loss_rises(tied_policies: tuple[Path, Path]):
    policy = tied_policies[0]
    pairs = [contradicted(pair) if uniform("held out", 3, pair.question_id) < 0.3 else pair for pair in PAIRS]
    config = FULL_DPO.model_copy(update={"early_stop": True})
    prepared = prepare_dpo(policy, policy, pairs, config, LIMITS, CPU)
    figures = prepared.train(prepared.model, lambda _: None)
    assert figures["stopped_early"]
    assert figures["num_steps"] == 1  # of 5 in the epoch, with a check at each
    assert figures["last_step"]["num_steps"] == 20


def test_an_adapter_is_trained_on_from_iteration_to_iteration_and_its_base_stays_as_it_is(
    tied_policies: tuple[Path, Path], tmp_path: Path
):
    base = tied_policies[0]
    base_weights = (base / "model.safetensors").read_bytes()
    first = trained(prepare_dpo(base, base, PAIRS, LORA_DPO, LIMITS, CPU), tmp_path / "first")
    prepared = prepare_dpo(first, base, PAIRS, LORA_DPO, LIMITS, CPU)
    held_out = prepared.train(prepared.model, lambda _: None)["held_out"]
    save_policy(prepared.model, prepared.tokenizer, tmp_path / "second")

    assert held_out["before"]["margin"] > 1  # the second training starts where the first ended
    assert base_dir(tmp_path / "second") == base
    assert sorted(load_file(first / "adapter_model.safetensors")) == sorted(
        load_file(tmp_path / "second" / "adapter_model.safetensors")
    )
    assert (base / "model.safetensors").read_bytes() == base_weights
    assert not torch.allclose(logits(first), logits(tmp_path / "second"))


def test_full_training_goes_on_from_an_adapter_by_merging_it(tied_policies: tuple[Path, Path], tmp_path: Path):
    base = tied_policies[0]
    adapter = trained(prepare_dpo(base, base, PAIRS, LORA_DPO, LIMITS, CPU), tmp_path / "adapter")
    merged = prepare_dpo(adapter, adapter, PAIRS, FULL_DPO, LIMITS, CPU)
    save_policy(merged.model, merged.tokenizer, tmp_path / "merged")
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(adapter))
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_an_adapter_of_another_rank_than_the_configs_is_the_users_error(adapter_policies: tuple[Path, Path]):
    config = LORA_DPO.model_copy(update={"lora": LoraConfig(rank=16, alpha=8)})
    with pytest.raises(UserError, match=r"dpo\.lora asks for rank 16 .* has rank 4"):
        prepare_dpo(adapter_policies[0], adapter_policies[0], PAIRS, config, LIMITS, CPU)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sft_makes_the_demonstrations_likely(tied_policies: tuple[Path, Path], tmp_path: Path, method: str):
    config = SftConfig(
        method="full" if method == "full" else "lora", lora=LORA, num_epochs=20, batch_size=10, learning_rate=5e-3
    )
    prepared = prepare_sft(tied_policies[0], DEMONSTRATIONS, config, LIMITS, CPU)
    figures = prepared.train(prepared.model, lambda _: None)
    assert figures["last_step"]["loss"] < 0.5 * figures["first_step"]["loss"]
    assert figures["num_steps"] == 60


def test_a_loss_that_is_not_finite_names_the_step_and_the_learning_rate(tied_policies: tuple[Path, Path]):
    config = SftConfig(method="full", num_epochs=3, batch_size=30, learning_rate=1e14)
    prepared = prepare_sft(tied_policies[0], DEMONSTRATIONS, config, LIMITS, CPU)
    with pytest.raises(Diverged, match=r"sft: at step 2 .* lower sft\.learning_rate"):
        prepared.train(prepared.model, lambda _: None)


def test_the_chosen_texts_log_probability_is_told_per_token_too(tied_policies: tuple[Path, Path]):
    """All chosen texts have two words and an end."""
    prepared = prepare_dpo(tied_policies[0], tied_policies[0], PAIRS, FULL_DPO, LIMITS, CPU)
    for figures in prepared.train(prepared.model, lambda _: None)["held_out"].values():
        assert figures["chosen_logp_per_token"] == pytest.approx(figures["chosen_logp"] / 3)


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import test_training
from medcritical_ray.out_of_memory import memory_remedy, words_of

limits = test_training.Limits(seed=3, max_tokens_per_forward=10**9)
config = test_training.SftConfig(method="full", num_epochs=1, batch_size=20_000, learning_rate=1e-3)
rows = test_training.DEMONSTRATIONS * 2000
prepared = test_training.prepare_sft(Path(sys.argv[1]), rows, config, limits, test_training.CPU)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
try:
    prepared.train(prepared.model, lambda _: None)
except (MemoryError, RuntimeError) as error:
    words = words_of(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(words.splitlines()[0][:200])
    print(memory_remedy(words, "train"))
"""


def test_a_training_that_runs_out_of_memory_is_told_the_setting_to_lower(tied_policies: tuple[Path, Path]):
    """For real: the process may take 64 MiB more than it has when the model is loaded."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(tied_policies[0])]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    cause, remedy = done.stdout.splitlines()
    assert "memory" in cause.lower()
    assert remedy == "lower trainers.max_tokens_per_forward"


def test_rows_that_are_all_too_long_are_the_users_error(tied_policies: tuple[Path, Path]):
    config = SftConfig(method="full", max_length_tokens=3)
    prepared = prepare_sft(tied_policies[0], DEMONSTRATIONS, config, LIMITS, CPU)
    with pytest.raises(UserError, match=r"raise sft\.max_length_tokens"):
        prepared.train(prepared.model, lambda _: None)


def test_a_fresh_student_is_saved_and_loaded_with_its_own_tokenizer(tmp_path: Path):
    tokenizer = train_tokenizer(["患者发热三天，伴咳嗽。"] * 5, vocab_size=300)
    config = FreshStudentConfig(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=96)
    student = fresh_student(config, tokenizer, max_length_tokens=128, seed=0)
    save_policy(student, tokenizer, tmp_path)
    prepared = prepare_sft(tmp_path, DEMONSTRATIONS, SftConfig(method="full"), LIMITS, CPU)
    assert prepared.model.config.vocab_size == len(tokenizer)
    assert prepared.tokenizer("发热 w1").input_ids == tokenizer("发热 w1").input_ids
    assert prepared.train(prepared.model, lambda _: None)["num_too_long"] == 0


@pytest.mark.parametrize("language", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_an_option_and_an_answer_line_are_the_same_tokens_from_the_text_on(language: Language):
    option = Option("C", "阿莫西林胶囊" if language is CHINESE else "amoxicillin")
    written, listed = format_answer([option.text], option.letter, language), options_text([option])
    tokenizer = train_tokenizer([written, listed] * 9, vocab_size=400)
    answered, chosen_from = (tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in (written, listed))
    assert chosen_from[0] == "-"
    assert answered[-len(chosen_from) + 1 :] == chosen_from[1:]


def test_the_learning_rate_rises_to_its_peak_and_falls_but_is_never_zero():
    assert [learning_rate_factor(step, 2, 4, 6) for step in range(6)] == [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
