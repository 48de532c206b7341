"""Full weights on their way from one vLLM engine to others, from GPU to GPU.

Written against the weight transfer of vLLM 0.31 (`vllm.distributed.weight_transfer`), and NOT YET RUN ON GPUs. What was
run, in tests/integration/test_weight_transfer.py, is vLLM's own code of both ends on a CPU, with something else in the
place of NCCL and of CUDA's streams.

Nothing here has a limit of time: a rank that dies leaves the others waiting in NCCL, where only the end of their
process helps. Whoever asks an engine to send or to receive must end it when it does not answer (actors/fleet.py).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from medcritical_ray.engines.channel import Channel, SentTensor
from medcritical_ray.errors import UserError

if TYPE_CHECKING:
    import torch
    from vllm import LLM
    from vllm.distributed.weight_transfer import ParamMeta

DEVICE = "cuda"
"""The GPU that is current in a process: an engine's first."""


def sent_tensors(weights: "Mapping[str, torch.Tensor]") -> tuple[SentTensor, ...]:
    """What is sent of these weights, in their order. Their types are the checkpoint's: whoever loads them converts."""
    return tuple(
        SentTensor(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
        for name, tensor in weights.items()
    )


class Sender:
    """The sending end of an engine, for one broadcast after the other. It needs no GPU but the engine's own."""

    def __init__(self) -> None:
        self._group: Any = None

    def send(self, channel: Channel, weights: "Mapping[str, torch.Tensor]") -> None:
        """Waits until all ranks are there, then sends the weights.

        Raises UserError if this process has no NCCL, ValueError if the weights are not what the channel says.
        """
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        _leave(self._group)
        source: Any = CheckpointSource(channel, weights)  # has the part of vLLM's WeightSource that NCCL's way needs
        trainer = NCCLTrainerWeightTransferEngine.trainer_init(
            NCCLTrainerInitInfo(rank=0, **channel.meeting), client=NullClient(), source=source
        )
        self._group = trainer.model_update_group
        _check_joined(self._group)
        trainer.send_weights()


class CheckpointSource:
    """The weights, put on the GPU one at a time as vLLM asks for them. It compares each with what was told of it."""

    def __init__(self, channel: Channel, weights: "Mapping[str, torch.Tensor]") -> None:
        self._channel = channel
        self._weights = weights

    def metadata(self) -> "list[ParamMeta]":
        """What the receivers were told."""
        import torch
        from vllm.distributed.weight_transfer import ParamMeta

        return [ParamMeta(each.name, getattr(torch, each.dtype), each.shape) for each in self._channel.tensors]

    def __iter__(self) -> "Iterator[tuple[str, torch.Tensor]]":
        for name, tensor in self._weights.items():
            yield name, tensor.to(DEVICE)


class NullClient:
    """In place of the client through which vLLM's sender asks the receivers: each is asked by its own seat, which
    watches it and takes its answer. So none of the sender's threads ever waits for one of them."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        pass

    def start_weight_update(self) -> None:
        pass

    def update_weights(self, update_info: Any) -> None:
        pass

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        pass


def receive(llm: "LLM", channel: Channel, receiver: int, version: int) -> None:
    """Waits until all ranks are there, then has the model take what is sent. If it fails half-way, the model has some
    of the new weights and some of the old ones. Raises UserError if a worker has no NCCL."""
    llm.collective_rpc(leave_last_group)
    llm.init_weight_transfer_engine({"init_info": channel.init_info(receiver)})
    llm.collective_rpc(check_group)
    llm.start_weight_update()
    llm.update_weights({"update_info": channel.update_info})
    llm.finish_weight_update(str(version))


def leave_last_group(worker: Any) -> None:
    """In a worker of vLLM: ends its part in the broadcast before."""
    _leave(worker.weight_transfer_engine.model_update_group)
    worker.weight_transfer_engine.shutdown()


def check_group(worker: Any) -> None:
    """In a worker of vLLM: as a sender does, before anything is received."""
    _check_joined(worker.weight_transfer_engine.model_update_group)


def _leave(group: Any) -> None:
    """Ends a communicator, which vLLM would only forget: its memory on the GPU, and its threads, would stay.

    That is done before the next broadcast and not after this one, when others may still read what this rank holds.
    """
    if group is not None:
        group.destroy()


def _check_joined(group: Any) -> None:
    """vLLM's communicator does nothing, and says nothing, where NCCL's library cannot be loaded or is switched off: a
    model would be left with whatever was in the memory that it took for weights."""
    if group.disabled:
        raise UserError("vLLM has no NCCL in this process: set engines.weight_transfer = 'object_store'")
