"""A model's architecture, told from its config.json alone, and what follows from it without loading anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A decoder of attention and gated feed-forward layers, as Qwen2 and Llama are.

    `num_vector_parameters` are those of a layer's biases and norms.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool
    num_vector_parameters: int

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one layer by name, each with the widths of its input and output."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def num_parameters(self) -> int:
        """Embeddings, an output head if it is not tied to them, all layers, and the last norm."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        layer = sum(map(prod, self.linear_layers.values())) + self.num_vector_parameters
        return embeddings + self.num_layers * layer + self.hidden_size

    def num_adapter_parameters(self, rank: int, target_modules: list[str] | None) -> int:
        """Of a LoRA adapter: rank * (in + out) for each adapted linear layer; None adapts all but the head."""
        adapted = [widths for name, widths in self.linear_layers.items() if name in (target_modules or [name])]
        return self.num_layers * rank * sum(map(sum, adapted))


def architecture_of(config: Mapping[str, Any]) -> Architecture | None:
    """None if `untold` has something to say."""
    if untold(config):
        return None
    text = _text_config(config)
    num_heads = text["num_attention_heads"]
    num_kv_heads = text.get("num_key_value_heads") or num_heads
    head_dim = text.get("head_dim") or text["hidden_size"] // num_heads
    vectors = _VECTORS[text["model_type"]](text, num_heads * head_dim, num_kv_heads * head_dim)
    return Architecture(
        hidden_size=text["hidden_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=text["intermediate_size"],
        vocab_size=text["vocab_size"],
        tied_embeddings=bool(text.get("tie_word_embeddings", False)),
        num_vector_parameters=2 * text["hidden_size"] + vectors,
    )


def untold(config: Mapping[str, Any]) -> str:
    """What the content of a config.json leaves open of the architecture, in a few words; empty if nothing."""
    text = _text_config(config)
    missing = [name for name in _SIZES if not isinstance(text.get(name), int) or text[name] < 1]
    if missing:
        return f"config.json does not say {', '.join(missing)}"
    if text.get("model_type") not in _VECTORS:
        return f"model_type = {text.get('model_type')!r} is none of {', '.join(_VECTORS)}, whose layers are known here"
    return ""


def bytes_per_parameter(config: Mapping[str, Any]) -> int:
    """Of the weights that belong to this config.json: 4 in float32, else 2, as all models are published today."""
    text = _text_config(config)
    return 4 if "float32" in (text.get("dtype"), text.get("torch_dtype")) else 2


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about text, which models of several kinds of input have."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _biases(text: Mapping[str, Any], query: int, key: int) -> int:
    return query + 2 * key + int(text["hidden_size"]) if text.get("attention_bias") else 0


def _llama_biases(text: Mapping[str, Any], query: int, key: int) -> int:
    feed_forward = 2 * text["intermediate_size"] + text["hidden_size"] if text.get("mlp_bias") else 0
    return int(feed_forward) + _biases(text, query, key)


def _head_norms(text: Mapping[str, Any], query: int, key: int) -> int:
    """Qwen3 has a norm over each head's queries, and one over its keys, besides."""
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return 2 * int(head_dim) + _biases(text, query, key)


_VECTORS: dict[str, Callable[[Mapping[str, Any], int, int], int]] = {
    "llama": _llama_biases,
    "mistral": lambda text, query, key: 0,
    "qwen2": lambda text, query, key: query + 2 * key,
    "qwen3": _head_norms,
}
"""Model type -> parameters of a layer's biases and of norms beyond its two, as transformers' models have them."""
