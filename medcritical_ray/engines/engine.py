"""One vLLM engine that serves one policy version at a time, and takes the next one without a restart.

The same class drives vLLM's CPU build and its CUDA build. It knows nothing of Ray.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcritical_ray.chat import load_tokenizer, prompt_token_ids
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.nccl import Sender, receive, sent_tensors
from medcritical_ray.engines.served import StaleVersion
from medcritical_ray.engines.vllm_settings import set_environment, told_in_one_line, vllm_settings
from medcritical_ray.engines.weights import Blob, check_names, checkpoint_names, decode_weights, with_output_head
from medcritical_ray.errors import UserError
from medcritical_ray.model_files import ADAPTER_CONFIG, is_adapter
from medcritical_ray.rollouts import Completion, Request

if TYPE_CHECKING:
    import torch
    from vllm import LLM
    from vllm.lora.request import LoRARequest

DrawnWith = Callable[[int, SamplingConfig], dict[str, Any]]
"""The arguments of vLLM's SamplingParams that a seed and a config's sampling come to."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The tokens that a policy wrote for one request, its end token included, and whether it stopped by itself."""

    token_ids: tuple[int, ...]
    finished: bool


class Engine:
    """Serves the policy in `policy_dir`, a Hugging Face directory with safetensors weights, as `version`.

    An engine with a `max_lora_rank` serves LoRA adapters of up to this rank over those weights; without one it takes
    full weights.
    """

    def __init__(
        self, policy_dir: str | Path, version: int, config: EnginesConfig, max_lora_rank: int | None = None
    ) -> None:
        self._tokenizer = load_tokenizer(policy_dir)
        self._weight_names = checkpoint_names(Path(policy_dir))
        self._config = config
        settings, self._drawn_with = _drawing()
        self._llm = _start_vllm(Path(policy_dir), config, max_lora_rank, settings)
        self._stop_token_ids = _stop_token_ids(self._llm, self._tokenizer.eos_token_id)
        self._adapter: LoRARequest | None = None
        self._num_adapters = 0
        self._sender = Sender()
        self._num_steps = 0
        self._version: int | None = version

    @property
    def version(self) -> int | None:
        """The version served; None after an update that failed half-way, when nothing can be served."""
        return self._version

    @property
    def num_steps(self) -> int:
        """Steps of decoding so far, each of which writes a token of every text in work. Any thread may look."""
        return self._num_steps

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig, version: int) -> list[Completion]:
        """One completion for each request, in their order; each depends on its request and the weights alone.

        Raises StaleVersion if `version` is not the one served, UserError if a prompt leaves no room for max_tokens.
        """
        samples = self.sample(requests, sampling, version)
        if not samples:
            return []
        texts = self._tokenizer.batch_decode([list(sample.token_ids) for sample in samples], skip_special_tokens=True)
        return [
            Completion(text=text, finished=sample.finished, num_tokens=len(sample.token_ids))
            for text, sample in zip(texts, samples, strict=True)
        ]

    def sample(self, requests: Sequence[Request], sampling: SamplingConfig, version: int) -> list[Sample]:
        """As `generate`, but the tokens."""
        if version != self._version:
            raise StaleVersion(f"the engine serves policy version {self._version}, not {version}")
        if not requests:
            return []
        prompts = prompt_token_ids(self._tokenizer, [request.prompt for request in requests])
        _check_lengths(prompts, sampling.max_tokens, self._config.max_model_len)
        return self._decode(prompts, [self._sampling_params(sampling, request.seed) for request in requests])

    def update_weights(self, version: int, blobs: Sequence[Blob]) -> None:
        """Takes full weights, given as the contents of a policy's safetensors files, and serves them as `version`.

        Raises UserError, and keeps what it serves, if the policy's tensors are not those that the engine started with.
        """
        reloaded = list(self._checked_weights(version, blobs).items())
        self._version, self._adapter = None, None
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": reloaded})
        self._llm.reset_prefix_cache()
        self._version = version

    def offer_channel(
        self, version: int, blobs: Sequence[Blob], num_receivers: int, *, address: str, port: int
    ) -> Channel:
        """How this engine would send full weights, given as to `update_weights`, to so many others with the same
        settings. Raises UserError as `update_weights` does: no engine has been asked for anything then."""
        return Channel(
            address=address,
            port=port,
            num_receivers=num_receivers,
            gpus_per_engine=self._config.tensor_parallel_size,
            tensors=sent_tensors(self._checked_weights(version, blobs)),
        )

    def send_weights(self, version: int, blobs: Sequence[Blob], channel: Channel) -> None:
        """Sends full weights through a channel that it has offered, once all receivers are there; what it serves stays.

        Raises UserError as `update_weights` does, before it waits for anybody. May never end, as said in nccl.py.
        """
        self._sender.send(channel, self._checked_weights(version, blobs))

    def receive_weights(self, version: int, channel: Channel, receiver: int) -> None:
        """Takes full weights that another engine sends, as the receiver of that number, and serves them as `version`.

        Raises UserError, before it waits for anybody, and keeps what it serves, if the names of the policy's tensors
        are not those that the engine started with. May never end, as said in nccl.py.
        """
        names = {tensor.name for tensor in channel.tensors}
        check_names(f"policy version {version}", names, self._weight_names, tied=self._has_tied_embeddings())
        self._version, self._adapter = None, None
        receive(self._llm, channel, receiver, version)
        self._llm.reset_prefix_cache()
        self._version = version

    def use_adapter(self, version: int, directory: str | Path) -> None:
        """Serves the LoRA adapter in `directory` as `version`, once one token was written with it.

        vLLM reads the directory when it likes and knows an adapter by its name: the directory must stay as it is, and
        each adapter gets a name of its own.
        """
        from vllm.lora.request import LoRARequest

        if not is_adapter(Path(directory)):
            raise UserError(f"{directory}: not a LoRA adapter, it has no {ADAPTER_CONFIG}")
        self._version = None
        self._num_adapters += 1
        name = f"version-{version}-{self._num_adapters}"
        self._adapter = LoRARequest(name, self._num_adapters, str(Path(directory).resolve()))
        self._decode([[self._stop_token_ids[0]]], [self._sampling_params(SamplingConfig(max_tokens=1), seed=0)])
        self._version = version

    def _checked_weights(self, version: int, blobs: Sequence[Blob]) -> "dict[str, torch.Tensor]":
        """The tensors of a policy's files, and the output head, which they may leave out. Raises UserError."""
        weights = decode_weights(blobs)
        tied = self._has_tied_embeddings()
        check_names(f"policy version {version}", set(weights), self._weight_names, tied=tied)
        return with_output_head(weights, tied=tied)

    def _decode(self, prompts: list[list[int]], params: list[Any]) -> list[Sample]:
        """What `LLM.generate` does, step by step, so that one can see from outside whether it goes on."""
        tokens: Any = [{"prompt_token_ids": ids} for ids in prompts]
        self._llm.enqueue(tokens, params, use_tqdm=False, lora_request=self._adapter)
        outputs: list[Any] = []
        while self._llm.llm_engine.has_unfinished_requests():
            outputs += self._llm.llm_engine.step()
            self._num_steps += 1
        outputs.sort(key=lambda output: int(output.request_id))
        written = [output.outputs[0] for output in outputs]
        return [Sample(tuple(each.token_ids), each.finish_reason == "stop") for each in written]

    def _sampling_params(self, sampling: SamplingConfig, seed: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            **self._drawn_with(seed, sampling),
            max_tokens=sampling.max_tokens,
            stop_token_ids=self._stop_token_ids,
            detokenize=False,
        )

    def _has_tied_embeddings(self) -> bool:
        return bool(self._llm.llm_engine.model_config.hf_text_config.tie_word_embeddings)


def _drawing() -> tuple[dict[str, Any], DrawnWith]:
    """Who draws tokens: an engine's settings for it, and what tells the engine how a request is drawn."""
    # The engine's core lives in this process, and is not orphaned when it dies.
    set_environment(VLLM_ENABLE_V1_MULTIPROCESSING="0")
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}, _drawn_by_vllm
    set_environment(VLLM_USE_V2_MODEL_RUNNER="0")  # the interface of Draws is that of the first
    from medcritical_ray.engines.draws import Draws, drawn_with

    return {"logits_processors": [Draws]}, drawn_with


def _drawn_by_vllm(seed: int, sampling: SamplingConfig) -> dict[str, Any]:
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}


def _start_vllm(policy_dir: Path, config: EnginesConfig, max_lora_rank: int | None, drawing: dict[str, Any]) -> "LLM":
    from vllm import LLM

    settings = vllm_settings(policy_dir, config, max_lora_rank, max_loras=1)
    with told_in_one_line(policy_dir):
        return LLM(skip_tokenizer_init=True, **settings, **drawing)


def _stop_token_ids(llm: "LLM", eos_token_id: int | None) -> list[int]:
    """The tokenizer's end token, and those that the model's generation settings add."""
    declared = llm.llm_engine.model_config.try_get_generation_config().get("eos_token_id")
    declared_ids = declared if isinstance(declared, list) else [declared]
    ids = [token_id for token_id in [eos_token_id, *declared_ids] if token_id is not None]
    if not ids:
        raise UserError("the model has no end token: neither its tokenizer nor its generation_config.json names one")
    return list(dict.fromkeys(ids))


def _check_lengths(prompts: list[list[int]], max_tokens: int, max_model_len: int) -> None:
    longest = max(map(len, prompts), default=0)
    if longest + max_tokens > max_model_len:
        raise UserError(
            f"engines.max_model_len {max_model_len} is too short: a prompt of {longest} tokens and {max_tokens} new "
            f"ones need {longest + max_tokens}; raise engines.max_model_len or lower max_tokens"
        )
