"""vLLM's own OpenAI serving layer over one engine, which takes policies of a run without a restart."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcritical_ray.config import Config
from medcritical_ray.engines.served import ServedPolicy, max_lora_rank
from medcritical_ray.engines.vllm_settings import set_environment, told_in_one_line, vllm_settings
from medcritical_ray.errors import MedCriticalError, WaitTimeout
from medcritical_ray.serving.conversations import literal_ids
from medcritical_ray.serving.model_ids import model_name
from medcritical_ray.serving.refusals import Refusal, Refused, too_long
from medcritical_ray.serving.tokenizer import check_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
    from vllm.v1.engine.async_llm import AsyncLLM

MAX_LORAS = 2
"""Adapters in one batch: that of the policy which is replaced, and that of the new one."""
_LENGTHS = {"input_tokens": "{} tokens or more", "input_text": "{} characters"}
"""What vLLM calls a prompt that is too long -> how long it is. It stops counting tokens one above the limit."""


class ServingEngine:
    """Starts with the weights of `first`; `take` has it hold others. `scratch` is a directory for its tokenizer.

    Its core is a process of its own, as in vLLM's server, and ends with this one.
    """

    def __init__(self, first: ServedPolicy, config: Config, scratch: Path) -> None:
        self.has_chat_template = write_tokenizer(first.model_dir, scratch)
        self._update_timeout_s = config.engines.update_timeout_s
        self._answer_timeout_s = config.serve.answer_timeout_s
        self._is_asked = asyncio.Lock()
        self._max_model_len = config.engines.max_model_len
        self._first = first.model_dir
        self._is_stuck = False
        self._llm = _start_vllm(first.model_dir, config, scratch)
        self._make_layers()

    async def open(self) -> None:
        """What needs the event loop. Raises UserError if prompts would be read differently than in the run."""
        check_tokenizer(self._llm.get_tokenizer(), self._first)
        await self._llm.collective_rpc("end_with", args=(os.getpid(),))

    def close(self) -> None:
        self._llm.shutdown(timeout=1.0)

    @property
    def is_alive(self) -> bool:
        """Whether it may still answer; if not, nothing but a new one helps."""
        return not self._llm.errored and not self._is_stuck

    async def take(self, model_dir: Path) -> None:
        """Holds the full weights in `model_dir` from now on; nothing may be in flight.

        Raises WaitTimeout, or MedCriticalError if they are not of this model. It must then take others before it is
        asked again: it waits, paused, for these.
        """
        limit_s = self._update_timeout_s
        try:
            async with asyncio.timeout(limit_s), self._is_asked:
                await self._llm.pause_generation(mode="wait")
                await self._llm.collective_rpc("take_policy", args=(str(model_dir), str(self._first)))
                await self._llm.resume_generation()
        except TimeoutError:
            self._is_stuck = True
            raise WaitTimeout(
                f"the engine did not take {model_dir} in {limit_s:g} s: see its log, or raise engines.update_timeout_s"
            ) from None
        except Exception as error:
            raise MedCriticalError(f"the engine did not take {model_dir}: {error}") from error

    async def probe(self) -> None:
        """Notices if the core does not answer any more, which it does between two steps. While it takes weights, it is
        not asked."""
        with suppress(Exception):  # of a dead one, which `is_alive` tells
            async with self._is_asked:
                try:
                    async with asyncio.timeout(self._answer_timeout_s):
                        await self._llm.is_sleeping()
                except TimeoutError:
                    self._is_stuck = True

    async def add_adapter(self, policy: ServedPolicy) -> None:
        """Makes an adapter known, whose weights are read when it is first asked. Raises MedCriticalError."""
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        name = model_name(policy.version)
        if policy.adapter_dir is None or name in self._models.lora_requests:
            return
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=str(policy.adapter_dir))
        result = await self._models.load_lora_adapter(request)
        if isinstance(result, ErrorResponse) and name not in self._models.lora_requests:
            raise MedCriticalError(f"the engine did not take {policy.adapter_dir}: {result.error.message}")

    async def chat(
        self, policy: ServedPolicy, request: "ChatCompletionRequest"
    ) -> "ChatCompletionResponse | AsyncIterator[str]":
        """The answer of a policy whose weights are in the engine, or its events. Raises Refused."""
        request.model = await self._name(policy)
        tokenizer: Any = self._llm.get_tokenizer()
        ids = await asyncio.to_thread(literal_ids, tokenizer, request, self._max_model_len)
        # The way in which one vLLM hands its tokens to another; it takes them in place of the messages' own.
        request.kv_transfer_params = {"prompt_token_ids": ids} if ids else None
        answer_tokens = request.max_completion_tokens or request.max_tokens or 0
        return await self._answered(self._chat.create_chat_completion(request), "messages", answer_tokens)

    async def complete(
        self, policy: ServedPolicy, request: "CompletionRequest"
    ) -> "CompletionResponse | AsyncIterator[str]":
        """As `chat`, of a plain text or tokens."""
        request.model = await self._name(policy)
        return await self._answered(self._completion.create_completion(request), "prompt", request.max_tokens or 0)

    async def _answered(self, answer: Any, param: str, answer_tokens: int) -> Any:
        """`param` is what is asked, `answer_tokens` how many may be written. Raises Refused for what vLLM refuses."""
        from vllm.entrypoints.serve import create_error_response
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse
        from vllm.exceptions import VLLMValidationError

        try:
            result = await answer
        except VLLMValidationError as error:
            if error.parameter in _LENGTHS:
                has, limit = _LENGTHS[error.parameter].format(error.value), self._max_model_len
                raise Refused(too_long(param, has, answer_tokens=answer_tokens, max_model_len=limit)) from None
            raise Refused(_refusal(create_error_response(error))) from None
        except Exception as error:
            result = create_error_response(error)
            if result.error.code >= 500:
                raise
        if isinstance(result, ErrorResponse):
            raise Refused(_refusal(result))
        return result

    async def _name(self, policy: ServedPolicy) -> str:
        """The policy's name, which vLLM's layer knows from now on."""
        from vllm.entrypoints.openai.models.protocol import BaseModelPath

        name = model_name(policy.version)
        if policy.adapter_dir:
            await self.add_adapter(policy)
        else:
            paths = [BaseModelPath(name=name, model_path=str(policy.model_dir))]
            self._models.base_model_paths = self._models.registry.base_model_paths = paths
        return name

    def _make_layers(self) -> None:
        from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
        from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
        from vllm.entrypoints.openai.models.protocol import BaseModelPath
        from vllm.entrypoints.openai.models.serving import OpenAIServingModels
        from vllm.renderers.online_renderer import OnlineRenderer

        llm = self._llm
        self._models = OpenAIServingModels(llm, [BaseModelPath(name="", model_path=str(self._first))])
        shared: dict[str, Any] = {"request_logger": None}
        template: dict[str, Any] = {"chat_template": None, "chat_template_content_format": "auto"}
        shared["online_renderer"] = OnlineRenderer(llm.model_config, llm.renderer, **shared, **template)
        self._chat = OpenAIServingChat(llm, self._models, "assistant", **shared, **template)
        self._completion = OpenAIServingCompletion(llm, self._models, **shared)


def _start_vllm(model_dir: Path, config: Config, tokenizer: Path) -> "AsyncLLM":
    # The core's process does the work itself; on the CPU vLLM takes another one for that unless it is told so.
    set_environment(VLLM_ENABLE_V1_MULTIPROCESSING="0")
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    if current_platform.is_cpu():
        # Else the first request with logprobs, or a sampled one, compiles C++ for a minute while all others wait.
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    with told_in_one_line(model_dir):
        arguments = AsyncEngineArgs(
            **vllm_settings(model_dir, config.engines, max_lora_rank(config), max_loras=MAX_LORAS),
            stream_interval=config.serve.stream_interval,
            distributed_executor_backend="uni" if config.engines.tensor_parallel_size == 1 else None,
            tokenizer=str(tokenizer),
            generation_config="vllm",  # no temperature or penalty of the base's own
            worker_extension_cls="medcritical_ray.serving.worker.PolicyWorker",
        )
        return AsyncLLM.from_engine_args(arguments)


def _refusal(response: Any) -> Refusal:
    error = response.error
    return Refusal(status=error.code, message=error.message, param=error.param, code=None)
