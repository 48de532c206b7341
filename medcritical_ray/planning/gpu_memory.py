"""Memory per GPU of an engine and of a training worker, from above, in GiB of 2**30 bytes, term by term.

Terms that need the architecture are 0 where it is unknown.
"""

from dataclasses import dataclass

from medcritical_ray.config import Config, DpoConfig, SftConfig
from medcritical_ray.engines.served import max_lora_rank, served_rank
from medcritical_ray.model_files import ModelSize
from medcritical_ray.planning.architecture import Architecture
from medcritical_ray.planning.estimates import (
    ADAPTER_SHARE,
    GIB,
    engine_weights_gib,
    frozen_bytes_per_parameter,
    trained_parameters,
)

CUDA_GIB = 2.0
"""Of a process on a GPU: CUDA's context and kernels, workspaces, an engine's CUDA graphs, NCCL's buffers. A guess."""
ALLOCATOR_SHARE = 0.1
"""Of activations and logits again: what torch's allocator holds in blocks that do not fit the next batch. A guess."""
BATCHED_TOKENS = 16_384
"""Tokens that an engine takes into one step: vLLM's default on GPUs of 70 to 160 GiB; on others it is no more."""
BYTES_PER_LOGIT = 12
"""Training, at the peak of the backward pass: log-softmax in float32 as it was kept, its gradient, and that of the
logits. All tokens of a forward pass count, though only those of completions are raised to float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineMemory:
    """Of one engine, on each of its GPUs, of which it takes `gpu_share` and no more.

    `working_gib` is what vLLM measures when it starts, before keys and values get the rest: activations of a full step,
    logits, and the process itself.
    """

    gpu_share: float
    weights_gib: float
    adapter_gib: float
    working_gib: float
    kv_bytes_per_token: float
    max_model_len: int
    max_num_seqs: int

    @property
    def sequence_gib(self) -> float:
        """Keys and values of a sequence of full length."""
        return self.kv_bytes_per_token * self.max_model_len / GIB

    def needed_gib(self, num_sequences: float = 1) -> float:
        """To write `num_sequences` of full length at the same time; vLLM does not start with less than one."""
        return self.weights_gib + self.adapter_gib + self.working_gib + num_sequences * self.sequence_gib

    def num_sequences_on(self, gpu_gib: float) -> float:
        """Sequences of full length for which there is room at the same time on GPUs of this size."""
        left = self.gpu_share * gpu_gib - self.needed_gib(0)
        return max(0.0, left / self.sequence_gib) if self.sequence_gib else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerMemory:
    """Of one training worker: every worker holds all of it, whatever their number.

    `activations_gib` and `logits_gib` are those of one forward and backward pass; the optimizer's step comes after
    them, and the reference's forward passes before.
    """

    weights_gib: float
    gradients_gib: float
    moments_gib: float
    activations_gib: float
    logits_gib: float
    optimizer_step_gib: float
    reference_gib: float
    process_gib: float
    gradient_checkpointing: bool

    @property
    def at_peak(self) -> dict[str, float]:
        """The terms that are held at the same time when most is."""
        state = {"gradients": self.gradients_gib, "moments": self.moments_gib}
        peaks = (
            {**state, "activations": self.activations_gib, "logits": self.logits_gib},
            {**state, "optimizer's step": self.optimizer_step_gib},
            {"reference": self.reference_gib, "logits": self.logits_gib},
        )
        fullest = max(peaks, key=lambda terms: sum(terms.values()))
        return {"weights": self.weights_gib, **fullest, "process": self.process_gib}

    @property
    def needed_gib(self) -> float:
        return sum(self.at_peak.values())


def engine_memory(config: Config, size: ModelSize) -> EngineMemory:
    engines, architecture = config.engines, size.architecture
    num_gpus = engines.tensor_parallel_size
    width = 4 if engine_weights_gib(config, size) * GIB > 3 * size.num_parameters else 2
    kv_bytes, working = 0.0, 0.0
    if architecture:
        heads = max(1.0, architecture.num_kv_heads / num_gpus)
        kv_bytes = 2 * architecture.num_layers * heads * architecture.head_dim * width
        # Four hidden states; the feed-forward part's two inner states and their product; logits in float32, and three
        # copies of them while a token is drawn.
        states = 4 * architecture.hidden_size + 3 * architecture.intermediate_size / num_gpus
        logits = 4 * 4 * architecture.vocab_size
        working = (BATCHED_TOKENS * states * width + engines.max_num_seqs * logits) / GIB
    return EngineMemory(
        gpu_share=engines.gpu_memory_utilization,
        weights_gib=engine_weights_gib(config, size) / num_gpus,
        adapter_gib=_served_adapter_parameters(config, size) * width / GIB,
        working_gib=working + CUDA_GIB,
        kv_bytes_per_token=kv_bytes,
        max_model_len=engines.max_model_len,
        max_num_seqs=engines.max_num_seqs,
    )


def trainer_memory(config: Config, size: ModelSize) -> TrainerMemory:
    """Of SFT or DPO, whichever takes more."""
    both = (training_memory(config, config.sft, size), training_memory(config, config.dpo, size))
    return max(both, key=lambda memory: memory.needed_gib)


def activation_bytes_per_token(
    architecture: Architecture, *, rank: int | None, row_tokens: int, gradient_checkpointing: bool
) -> float:
    """What the layers keep for the backward pass, per token; `rank` is that of an adapter, None trains all weights.

    The tensors of a layer are counted one by one, as in Korthikanti et al. (arXiv 2205.05198, section 4.1), but for
    layers as transformers and PEFT run them under autocast: norms in float32 (4 bytes each), the input of every trained
    linear layer in bfloat16 (2 bytes), queries, repeated keys and values and the output of attention, the feed-forward
    part's gate before and after its activation and what it gates, and a mask over `row_tokens`. Attention scores are
    never kept. With checkpointing (Chen et al., arXiv 1604.06174) each layer keeps its input alone, and one layer at a
    time the rest. Either way one more layer stands for gradients on their way. Compared with what autograd keeps in
    tests/integration/test_gpu_memory.py.
    """
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    query, heads = architecture.num_heads * architecture.head_dim, architecture.num_heads
    norms = 2 * 4 * hidden if rank is not None else 4 * 4 * hidden  # trained norms keep their output, too
    linear_inputs = 2 * (5 * hidden + query + inner) + 2 * 7 * (rank or 0)
    attention = 2 * 4 * query + 4 * heads + 2 * row_tokens
    feed_forward = 2 * 3 * inner
    layer = norms + linear_inputs + attention + feed_forward + 2 * 4
    kept = (2 if rank is not None else 4) * hidden  # the residual stream has the type of the embeddings
    if gradient_checkpointing:
        return architecture.num_layers * kept + 2 * layer
    return (architecture.num_layers + 1) * layer


def _served_adapter_parameters(config: Config, size: ModelSize) -> float:
    """Of the buffers for an adapter, which vLLM has for all linear layers, whichever of them were trained."""
    rank = max_lora_rank(config)
    if rank is None:
        return 0
    if size.architecture is None:
        return ADAPTER_SHARE * size.num_parameters
    return size.architecture.num_adapter_parameters(served_rank(rank), None)


def training_memory(config: Config, part: SftConfig | DpoConfig, size: ModelSize) -> TrainerMemory:
    trained, is_full = trained_parameters(part, size), part.method == "full"
    frozen_gib = size.num_parameters * frozen_bytes_per_parameter(config) / GIB
    num_sequences = 2 if isinstance(part, DpoConfig) else 1
    tokens = max(config.trainers.max_tokens_per_forward, num_sequences * part.max_length_tokens)
    activations, logits = 2 * trained, 0.0  # autocast keeps trained weights in bfloat16, too, until the backward pass
    if size.architecture:
        per_token = activation_bytes_per_token(
            size.architecture,
            rank=None if is_full else part.lora.rank,
            row_tokens=part.max_length_tokens,
            gradient_checkpointing=config.trainers.gradient_checkpointing,
        )
        activations += tokens * per_token
        logits = tokens * size.architecture.vocab_size * BYTES_PER_LOGIT
    holds_reference = isinstance(part, DpoConfig) and part.reference == "initial"
    return TrainerMemory(
        weights_gib=4 * trained / GIB + (0 if is_full else frozen_gib),
        gradients_gib=4 * trained * (2 if config.trainers.num_workers > 1 else 1) / GIB,  # DDP's buckets are copies
        moments_gib=8 * trained / GIB,
        activations_gib=activations / GIB,
        logits_gib=logits / GIB,
        optimizer_step_gib=4 * trained / GIB,  # AdamW updates all parameters at once, in a copy
        reference_gib=frozen_gib if holds_reference else 0.0,
        process_gib=CUDA_GIB + ALLOCATOR_SHARE * (activations + logits) / GIB,
        gradient_checkpointing=config.trainers.gradient_checkpointing,
    )
