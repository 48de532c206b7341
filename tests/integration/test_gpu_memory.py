"""The plan's memory of activations against what autograd keeps, in small models run as on a GPU."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from medcritical_ray.planning.architecture import architecture_of
from medcritical_ray.planning.gpu_memory import activation_bytes_per_token
from medcritical_ray.training.models import use_gradient_checkpointing

NUM_ROWS, ROW_TOKENS, RANK = 2, 48, 8
CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def model_of(num_layers: int, *, adapted: bool) -> nn.Module:
    """With an adapter the weights below it are in bfloat16, as on a GPU."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG, num_hidden_layers=num_layers))
    if not adapted:
        return model
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=RANK, target_modules="all-linear")
    return get_peft_model(model.to(torch.bfloat16), lora)


def hidden_states(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(0, CONFIG["vocab_size"], (NUM_ROWS, ROW_TOKENS))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers = model.get_submodule("base_model.model.model" if hasattr(model, "peft_config") else "model")
        return layers(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state


def kept_bytes(model: nn.Module) -> int:
    """Of the tensors that autograd keeps in a forward pass, but for weights and copies of them."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {shape for weight in model.parameters() for shape in (tuple(weight.shape), tuple(weight.shape)[::-1])}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(model)
    return sum(storage.nbytes() for storage in kept.values())


def kept_per_token_and_layer(*, adapted: bool, checkpointing: bool) -> float:
    sizes = []
    for num_layers in (2, 4):
        model = model_of(num_layers, adapted=adapted)
        if checkpointing:
            use_gradient_checkpointing(model)
        sizes.append(kept_bytes(model))
    return (sizes[1] - sizes[0]) / 2 / (NUM_ROWS * ROW_TOKENS)


def planned_per_token_and_layer(*, adapted: bool, checkpointing: bool) -> float:
    sizes = []
    for num_layers in (2, 4):
        architecture = architecture_of({**CONFIG, "num_hidden_layers": num_layers, "model_type": "qwen2"})
        assert architecture is not None
        sizes.append(
            activation_bytes_per_token(
                architecture,
                rank=RANK if adapted else None,
                row_tokens=ROW_TOKENS,
                gradient_checkpointing=checkpointing,
            )
        )
    return (sizes[1] - sizes[0]) / 2


@pytest.mark.parametrize("adapted", [True, False], ids=["adapter", "all weights"])
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "all kept"])
def test_layers_keep_what_is_planned_and_hardly_less(adapted: bool, checkpointing: bool):
    kept = kept_per_token_and_layer(adapted=adapted, checkpointing=checkpointing)
    planned = planned_per_token_and_layer(adapted=adapted, checkpointing=checkpointing)
    assert kept <= planned <= 1.1 * kept


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = model_of(2, adapted=True)
        if checkpointing:
            use_gradient_checkpointing(model)
        hidden_states(model).float().pow(2).mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert any(gradient.abs().max() > 0 for gradient in gradients[0].values())
