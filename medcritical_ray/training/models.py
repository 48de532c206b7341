"""Policies as models to train: full weights or a LoRA adapter, from a Hugging Face directory and back to one."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from medcritical_ray.config import FreshStudentConfig, LoraConfig
from medcritical_ray.config.training import Method
from medcritical_ray.errors import UserError
from medcritical_ray.model_files import ADAPTER_CONFIG, check_adapter, is_adapter
from medcritical_ray.run.policies import MANIFEST, Policy, read_manifest
from medcritical_ray.training.batches import Batch
from medcritical_ray.training.losses import logps_at, token_logps
from medcritical_ray.training.packing import takes_packed
from medcritical_ray.training.small_models import small_model


def base_dir(directory: Path) -> Path:
    """Where the full weights of a policy are: below its adapter, or in the directory itself."""
    if not is_adapter(directory):
        return directory
    if (directory / MANIFEST).is_file():
        manifest = read_manifest(directory)
        base = Policy(version=manifest.version, path=directory, manifest=manifest).base_path
        if base is not None:
            return base
    return Path(json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])


def load_trainable(
    directory: Path, method: Method, lora: LoraConfig, *, config_part: str, device: torch.device, seed: int
) -> PreTrainedModel:
    """The policy, ready to be trained on `device`.

    With "full", all weights in float32, an adapter merged into them. With "lora", the policy's own adapter, or a new
    one whose start is drawn by `seed`; the weights below are frozen, in bfloat16 on a GPU. Raises UserError if the
    policy's adapter has another rank or alpha than `lora` asks for.
    """
    if method == "full":
        return _on(device, load_merged(directory, torch.float32))
    model = _with_adapter(directory, lora, config_part, frozen_dtype(device), seed)
    return _on(device, model)


def frozen_dtype(device: torch.device) -> torch.dtype:
    """Of weights that are not trained."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def with_new_adapter(model: PreTrainedModel, lora: LoraConfig, seed: int) -> Any:
    """The model with an adapter whose start is drawn by `seed`, which alone is trained.

    Any, since PEFT's models are no PreTrainedModel to the type checker, though they act as one.
    """
    import peft

    torch.manual_seed(seed)
    adapter = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
    )
    return peft.get_peft_model(model, adapter)


def use_gradient_checkpointing(model: Any) -> None:
    """While it trains, each layer keeps its input alone, and is computed again in the backward pass (arXiv 1604.06174).

    The non-reentrant form goes together with frozen embeddings and with DDP.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def load_frozen(directory: Path, device: torch.device) -> PreTrainedModel:
    """The policy for inference: a reference."""
    model = _on(device, load_merged(directory, frozen_dtype(device)))
    return model.eval().requires_grad_(False)


def load_merged(directory: Path, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    """The policy as one model, its adapter merged into the weights below; with "auto", in the type that these have."""
    model = _full_weights(base_dir(directory), dtype)
    if not is_adapter(directory):
        return model
    from peft import PeftModel

    check_adapter(directory)
    return PeftModel.from_pretrained(model, directory).merge_and_unload()


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Weights as safetensors, or the adapter alone, and the tokenizer."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)  # an empty form that PEFT adds to adapters


def fresh_student(
    config: FreshStudentConfig, tokenizer: PreTrainedTokenizerBase, *, max_length_tokens: int, seed: int
) -> PreTrainedModel:
    """A small Qwen2 with random weights and tied embeddings, for the tokens of `tokenizer`."""
    torch.manual_seed(seed)
    return small_model(
        config,
        vocab_size=len(tokenizer),
        max_length_tokens=max_length_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def completion_logps(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probability of each completion token, logps_BT: a forward pass, and `token_logps`.

    What the texts of a pair share is read once, if the model can do so.
    """
    packed = batch.packed
    if packed is None or not takes_packed(getattr(model, "module", model).config):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
        return token_logps(logits, batch.input_ids, batch.completion_mask)
    logits = model(
        input_ids=packed.input_ids,
        attention_mask=packed.attention_mask,
        position_ids=packed.position_ids,
        logits_to_keep=packed.columns,
        use_cache=False,
    ).logits
    return logps_at(logits, packed.predicted_at, batch.input_ids, batch.completion_mask)


def _on(device: torch.device, model: Any) -> Any:
    """Any, since transformers' decorator hides the types of `to`."""
    return model.to(device)


def _full_weights(directory: Path, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} is no model: it has no config.json")
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )


def _with_adapter(directory: Path, lora: LoraConfig, config_part: str, dtype: torch.dtype, seed: int) -> Any:
    import peft

    model = _full_weights(base_dir(directory), dtype)
    if not is_adapter(directory):
        return with_new_adapter(model, lora, seed)
    check_adapter(directory)
    _check_same_shape(peft.LoraConfig.from_pretrained(str(directory)), lora, directory, config_part)
    return peft.PeftModel.from_pretrained(model, directory, is_trainable=True)


def _check_same_shape(found: Any, wanted: LoraConfig, directory: Path, config_part: str) -> None:
    if (found.r, found.lora_alpha) != (wanted.rank, wanted.alpha):
        raise UserError(
            f"{config_part}.lora asks for rank {wanted.rank} and alpha {wanted.alpha}, but the adapter in {directory}, "
            f"which training goes on from, has rank {found.r} and alpha {found.lora_alpha}: set these"
        )
