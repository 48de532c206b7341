"""SFT and DPO of a 7B architecture with random weights on a GPU: beside what the GPU can do, and what the plan allows.

Needs torch, transformers and PEFT, and what the config is made of. Nothing else may use the GPU meanwhile.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.benchmarks import clinic
from jobs.benchmarks.figures import Figure, Goal, NotMeasured, in_turn

if TYPE_CHECKING:
    import torch

    from medcritical_ray.config import Config
    from medcritical_ray.planning.architecture import Architecture
    from medcritical_ray.training.examples import DpoExample, SftExample

Part = Literal["sft", "dpo"]
Method = Literal["lora", "full"]

ARCHITECTURE: dict[str, Any] = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
"""That of Qwen2.5-7B: 7.6 billion parameters."""
BATCH_SIZE, MAX_LENGTH_TOKENS = 16, 1536
NUM_EXAMPLES = {"sft": 6 * BATCH_SIZE, "dpo": 4 * BATCH_SIZE}
MATRIX_SIZE, NUM_PRODUCTS = 8192, 50
GIB = 2**30


def measure(repeats: int, scratch: Path) -> Sequence[Figure | NotMeasured]:
    """Each training over its examples once, of DPO with the reference's log-probabilities; a product of two matrices
    in turn with it. First comes one on examples as long as may be, which is not counted: the peak of memory is its."""
    import torch

    kinds: list[tuple[Part, Method]] = [("sft", "lora"), ("dpo", "lora"), ("sft", "full"), ("dpo", "full")]
    if not torch.cuda.is_available():
        return [NotMeasured(goal=goal, why="no GPU") for kind in kinds for goal in _goals(*kind)]
    return [figure for kind in kinds for figure in _measured(*kind, repeats, torch.device("cuda"))]


def _goals(part: Part, method: Method) -> tuple[Goal, Goal, Goal]:
    """Speed, utilisation and memory."""
    name = f"{part.upper()} of a 7B architecture, {'LoRA' if method == 'lora' else 'full weights'}"
    return (
        Goal(name=name, unit="tokens/s"),
        Goal(name=f"{name}: model FLOPs", unit="TFLOP/s", peer="a matrix product in bfloat16"),
        Goal(name=f"{name}: peak memory", unit="GiB", peer="the plan", target=1.0, reach="at most"),
    )


def _measured(part: Part, method: Method, repeats: int, device: "torch.device") -> Sequence[Figure | NotMeasured]:
    import torch

    speed, utilisation, memory = goals = _goals(part, method)
    training = Training(part, method, ARCHITECTURE)
    gpu_gib = torch.cuda.get_device_properties(device).total_memory / GIB
    if training.planned_gib > gpu_gib:
        why = f"needs {training.planned_gib:.0f} GiB by the plan, and the GPU has {gpu_gib:.0f}"
        return [NotMeasured(goal=goal, why=why) for goal in goals]
    run = training.on(device)
    run.seconds(training.longest)
    trained = partial(run.seconds, training.examples)
    seconds, products = in_turn(repeats, trained, partial(product_tflops, device, MATRIX_SIZE, NUM_PRODUCTS))
    peak_gib = torch.cuda.max_memory_reserved(device) / GIB + _outside_torch_gib(device)
    del run
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return [
        Figure(goal=speed, ours_each=[training.num_tokens / each for each in seconds]),
        Figure(goal=utilisation, ours_each=[training.flops / each / 1e12 for each in seconds], peer_each=products),
        Figure(goal=memory, ours_each=[peak_gib], peer_each=[training.planned_gib]),
    ]


def product_tflops(device: "torch.device", size: int, num_products: int) -> float:
    """What the device reaches with the easiest work that there is: products of two square matrices in bfloat16."""
    import torch

    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    left @ right
    _finish(device)
    started = time.perf_counter()
    for _ in range(num_products):
        left @ right
    _finish(device)
    return 2 * size**3 * num_products / (time.perf_counter() - started) / 1e12


class Training:
    """Of one kind, in one architecture: its examples, what the plan says of it, and what it has to compute."""

    def __init__(self, part: Part, method: Method, architecture: dict[str, Any], num_examples: int = 0) -> None:
        from medcritical_ray.planning.architecture import architecture_of

        self.part, self.method, self.model_config = part, method, architecture
        known = architecture_of({"model_type": "qwen2", **architecture})
        assert known is not None
        self.architecture: Architecture = known
        self.config = _config(part, method)
        self.rank = getattr(self.config, part).lora.rank if method == "lora" else None
        num_examples = num_examples or NUM_EXAMPLES[part]
        make = _sft_example if part == "sft" else _dpo_example
        ids = _Ids(architecture["vocab_size"])
        self.examples: list[Any] = [make(ids) for _ in range(num_examples)]
        self.longest: list[Any] = [_longest(part, ids) for _ in range(min(num_examples, BATCH_SIZE))]

    def on(self, device: "torch.device") -> "TrainingRun":
        return TrainingRun(self, device)

    @property
    def planned_gib(self) -> float:
        from medcritical_ray.model_files import ModelSize
        from medcritical_ray.planning.gpu_memory import training_memory

        num_parameters = self.architecture.num_parameters
        size = ModelSize(num_parameters=num_parameters, num_bytes=2 * num_parameters, architecture=self.architecture)
        return training_memory(self.config, getattr(self.config, self.part), size).needed_gib

    @property
    def num_tokens(self) -> int:
        """That the model reads while it trains: of a pair, what its texts share once."""
        return sum(_load(example).num_tokens for example in self.examples)

    @property
    def flops(self) -> float:
        """Of the training, and of the reference's forward pass."""
        return sum(self._flops(_load(example)) for example in self.examples)

    def _flops(self, load: "_Load") -> float:
        from medcritical_ray.planning.flops import forward_flops, training_flops

        sizes = asdict(load)
        trained = training_flops(self.architecture, rank=self.rank, **sizes)
        return trained if self.part == "sft" else trained + forward_flops(self.architecture, rank=self.rank, **sizes)


class TrainingRun:
    """The model on a device, which is trained again and again."""

    def __init__(self, training: Training, device: "torch.device") -> None:
        self._training, self._device = training, device
        self._model = _random_model(training, device)

    def seconds(self, examples: list[Any]) -> float:
        """Of a training on these."""
        from medcritical_ray.training.dpo import dpo, with_reference_logps
        from medcritical_ray.training.examples import Tokenised
        from medcritical_ray.training.sft import sft

        config, model = self._training.config, self._model
        tokenised: Any = Tokenised(examples=examples, num_too_long=0)
        limits: dict[str, Any] = {
            "pad_token_id": 0,
            "max_tokens_per_forward": config.trainers.max_tokens_per_forward,
        }
        _finish(self._device)
        started = time.perf_counter()
        if self._training.part == "sft":
            sft(model, tokenised, config.sft, **limits, seed=0, on_step=_ignore)
        else:
            scored = with_reference_logps(model, tokenised, **limits)
            dpo(model, scored, config.dpo, **limits, seed=0, on_step=_ignore)
        _finish(self._device)
        return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class _Load:
    """Of an example: tokens that are read, of which some are predicted, and how many a token sees in the mean."""

    num_tokens: int
    num_predicted: int
    mean_context: float


class _Ids:
    """Draws tokens."""

    def __init__(self, vocab_size: int) -> None:
        self._rng, self._vocab_size = random.Random(0), vocab_size

    def __call__(self, shortest: int, longest: int) -> list[int]:
        return [self._rng.randrange(self._vocab_size) for _ in range(self._rng.randint(shortest, longest))]


def _sft_example(ids: _Ids) -> "SftExample":
    """A question and an answer to it, of some usual length."""
    from medcritical_ray.training.examples import SftExample

    return SftExample(prompt_ids=ids(150, 450), completion_ids=ids(150, 350))


def _dpo_example(ids: _Ids) -> "DpoExample":
    """Two answers whose first steps are the same."""
    from medcritical_ray.training.examples import DpoExample

    prompt, shared = ids(150, 450), ids(50, 150)
    chosen, rejected = shared + ids(100, 200), shared + ids(100, 200)
    return DpoExample(question_id="", prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)


def _longest(part: Part, ids: _Ids) -> "SftExample | DpoExample":
    """As long as may be; of a pair, the texts share next to nothing."""
    from medcritical_ray.training.examples import DpoExample, SftExample

    length = MAX_LENGTH_TOKENS - 16
    prompt, text, other = ids(16, 16), ids(length, length), ids(length, length)
    if part == "sft":
        return SftExample(prompt_ids=prompt, completion_ids=text)
    return DpoExample(question_id="", prompt_ids=prompt, chosen_ids=text, rejected_ids=other)


def _load(example: "SftExample | DpoExample") -> _Load:
    from medcritical_ray.training.examples import SftExample
    from medcritical_ray.training.packing import num_shared

    num_prompt = len(example.prompt_ids)
    if isinstance(example, SftExample):
        num_tokens = example.length_tokens
        return _Load(num_tokens, len(example.completion_ids), (num_tokens + 1) / 2)
    chosen, rejected = (num_prompt + len(ids) for ids in (example.chosen_ids, example.rejected_ids))
    shared = num_prompt + num_shared(example.chosen_ids, example.rejected_ids)
    num_tokens = chosen + rejected - shared
    num_seen = sum(range(1, chosen + 1)) + sum(range(shared + 1, rejected + 1))
    return _Load(num_tokens, num_tokens - num_prompt, num_seen / num_tokens)


def _config(part: Part, method: Method) -> "Config":
    """A 7B student's, with the demo's loss and a learning rate that leaves random weights what they are."""
    trained: dict[str, Any] = {
        "method": method,
        "lora": {"rank": 32, "alpha": 64},
        "num_epochs": 1,
        "batch_size": BATCH_SIZE,
        "max_length_tokens": MAX_LENGTH_TOKENS,
        "learning_rate": 1e-7,
    }
    trainers = {"num_workers": 1, "num_gpus": 1, "max_tokens_per_forward": 8192, "gradient_checkpointing": True}
    held_out = {"held_out_share": 0.0} if part == "dpo" else {}
    return clinic.demo_config(**{part: trained | held_out}, trainers=trainers)


def _random_model(training: Training, device: "torch.device") -> Any:
    """Made where it is trained: 30 GB of weights would take minutes through the memory of the machine."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from medcritical_ray.training.models import frozen_dtype, use_gradient_checkpointing, with_new_adapter

    torch.manual_seed(0)
    dtype = torch.float32 if training.rank is None else frozen_dtype(device)
    config = Qwen2Config(**training.model_config)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if training.rank is not None:
        model = with_new_adapter(model, getattr(training.config, training.part).lora, seed=0)
    if training.config.trainers.gradient_checkpointing and device.type == "cuda":
        use_gradient_checkpointing(model)
    return model.to(device)


def _outside_torch_gib(device: "torch.device") -> float:
    """What the process holds on the GPU besides torch's tensors: CUDA's context and kernels."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return (total - free - torch.cuda.memory_reserved(device)) / GIB


def _finish(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ignore(metrics: dict[str, float]) -> None:
    pass
