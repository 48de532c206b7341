"""Engines as they are, but for what needs a GPU, a core and a start: over the installed vLLM's own LLM, workers and
weight transfer, with a plain model, and with the store where ranks meet in place of NCCL."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import LLM
from vllm.config import WeightTransferConfig
from vllm.distributed.utils import StatelessProcessGroup
from vllm.distributed.weight_transfer import packed_tensor
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import record_metadata_for_reloading
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.v1.serial_utils import run_method
from vllm.v1.worker.gpu_worker import Worker

from medcritical_ray.config import EnginesConfig
from medcritical_ray.engines import channel as channels
from medcritical_ray.engines import engine as engines
from medcritical_ray.engines import nccl
from medcritical_ray.engines.engine import Engine
from medcritical_ray.engines.weights import decode_weights, read_blobs, with_output_head

LIMIT_S = 60


class StoreCommunicator:
    """In place of vLLM's NCCL communicator: tensors go through the store where the ranks met."""

    disabled = False

    def __init__(self, group: StatelessProcessGroup, device: Any) -> None:
        self.group = group
        self.is_left = False

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        tensor.copy_(self.group.broadcast(tensor, src))

    def destroy(self) -> None:
        self.is_left = True


class PlainModel(torch.nn.Module):
    """A model in bfloat16 whose parameters have the names and shapes of a checkpoint's tensors, each in a layer."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            layer = torch.nn.Module()
            layer.register_parameter("weight", torch.nn.Parameter(torch.zeros_like(tensor, dtype=torch.bfloat16)))
            self.add_module(name.replace(".", "-"), layer)
        self.num_loads = 0

    def load_weights(self, weights_iterator: list[tuple[str, torch.Tensor]]) -> None:
        self.num_loads += 1
        for name, tensor in weights_iterator:
            parameter = self.get_submodule(name.replace(".", "-")).weight
            getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor)

    def holds(self, policy_dir: Path) -> bool:
        """Whether all its weights are those of a policy, and no others."""
        held = {name.replace("-", ".").removesuffix(".weight"): each.data for name, each in self.named_parameters()}
        wanted = spelled_out(policy_dir)
        return held.keys() == wanted.keys() and all(held[name].equal(wanted[name].bfloat16()) for name in wanted)


def worker_of(model: PlainModel, rank_in_engine: int, gpus_per_engine: int) -> Worker:
    """vLLM's own worker, but for its start: it has a model, and the engine that receives weights for it."""
    worker = object.__new__(Worker)
    parallel = SimpleNamespace(data_parallel_index=0, world_size=gpus_per_engine, rank=rank_in_engine)
    worker.vllm_config = SimpleNamespace(parallel_config=parallel, model_config=SimpleNamespace(dtype=torch.bfloat16))
    worker.model_runner = SimpleNamespace(reset_lora_state=lambda: None, reload_weights=model.load_weights)
    worker.weight_transfer_engine = WeightTransferEngineFactory.create_engine(
        WeightTransferConfig(backend="nccl"), worker.vllm_config, torch.device("cpu"), model
    )
    worker._weight_update_active = worker._weight_update_is_draft = False
    return worker


class PlainEngine:
    """An Engine as it is, over vLLM's own LLM and workers, but for their start and their core."""

    def __init__(self, policy_dir: Path, gpus_per_engine: int, monkeypatch: pytest.MonkeyPatch) -> None:
        weights = spelled_out(policy_dir)
        self.models = [PlainModel(weights) for _ in range(gpus_per_engine)]
        for model in self.models:
            record_metadata_for_reloading(model)
        self.workers = [worker_of(model, rank, gpus_per_engine) for rank, model in enumerate(self.models)]
        self.version_told = ""
        self.num_cache_resets = 0
        llm = object.__new__(LLM)
        llm.llm_engine = self._core(tied="lm_head.weight" not in decode_weights(read_blobs(policy_dir)))
        monkeypatch.setattr(engines, "_start_vllm", lambda *_: llm)
        self.engine = Engine(policy_dir, 0, EnginesConfig(tensor_parallel_size=gpus_per_engine, num_gpus=2))

    def _core(self, *, tied: bool) -> Any:
        def call_all(method: Any, timeout: float | None = None, args: tuple = (), kwargs: Any = None) -> list[Any]:
            with ThreadPoolExecutor(len(self.workers)) as threads:
                calls = [threads.submit(run_method, each, method, args, kwargs or {}) for each in self.workers]
                return [call.result(LIMIT_S) for call in calls]

        return SimpleNamespace(
            collective_rpc=call_all,
            set_weight_version=lambda version: setattr(self, "version_told", version),
            reset_prefix_cache=lambda *_: setattr(self, "num_cache_resets", self.num_cache_resets + 1),
            model_config=SimpleNamespace(
                hf_text_config=SimpleNamespace(tie_word_embeddings=tied),
                try_get_generation_config=dict,
            ),
        )


def spelled_out(policy_dir: Path) -> dict[str, torch.Tensor]:
    weights = decode_weights(read_blobs(policy_dir))
    return with_output_head(weights, tied="lm_head.weight" not in weights)


def go_without_gpus(patch: pytest.MonkeyPatch) -> None:
    """No NCCL, no streams. Packages are small, so that the weights of a tiny model travel in several."""
    stream = SimpleNamespace(synchronize=lambda: None)
    patch.setattr("vllm.distributed.device_communicators.pynccl.PyNcclCommunicator", StoreCommunicator)
    patch.setattr("vllm.v1.worker.gpu_worker.set_current_vllm_config", lambda _: nullcontext())
    patch.setattr(packed_tensor, "_get_streams", lambda _, num_buffers: (stream,) * num_buffers)
    patch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    patch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    patch.setattr(torch.accelerator, "synchronize", lambda: None)
    patch.setattr(nccl, "DEVICE", "cpu")
    patch.setattr(channels, "PACKED_BYTES", 25_000)
