"""How one engine sends weights to the others: ranks, what is told of the weights, in which order a model is asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from medcritical_ray.engines import nccl
from medcritical_ray.engines.channel import Channel, SentTensor
from medcritical_ray.engines.nccl import (
    CheckpointSource,
    check_group,
    leave_last_group,
    receive,
    sent_tensors,
)
from medcritical_ray.engines.weights import decode_weights, read_blobs, with_output_head
from medcritical_ray.errors import UserError

EMBEDDINGS = SentTensor(name="model.embed_tokens.weight", dtype="bfloat16", shape=(6, 4))
NORM = SentTensor(name="model.norm.weight", dtype="float32", shape=(4,))
MEETING = {
    "master_address": "10.0.0.7",
    "master_port": 40123,
    "packed": True,
    "packed_buffer_size_bytes": 268_435_456,
}


def channel_to(num_receivers: int, gpus_per_engine: int = 1, tensors: tuple[SentTensor, ...] = ()) -> Channel:
    return Channel(
        address="10.0.0.7",
        port=40123,
        num_receivers=num_receivers,
        gpus_per_engine=gpus_per_engine,
        tensors=tensors,
    )


class RecordedLlm:
    """Notes what it is asked, and with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


def checkpoint(directory: Path, *, tied: bool) -> dict[str, torch.Tensor]:
    """The weights as an engine sends them, of a checkpoint in two files and two types."""
    first = {"model.norm.weight": torch.rand(4), "model.embed_tokens.weight": torch.rand(6, 4).bfloat16()}
    second = {"model.layers.0.mlp.up_proj.weight": torch.rand(8, 4).bfloat16()}
    if not tied:
        second["lm_head.weight"] = torch.rand(6, 4).bfloat16()
    save_file(first, directory / "model-00001-of-00002.safetensors")
    save_file(second, directory / "model-00002-of-00002.safetensors")
    return with_output_head(decode_weights(read_blobs(directory)), tied=tied)


def test_the_sender_is_rank_0_and_every_other_engine_has_the_rank_that_comes_next():
    channel = channel_to(num_receivers=3)
    assert channel.meeting == {**MEETING, "world_size": 4}
    assert [channel.init_info(receiver) for receiver in range(3)] == [
        {**MEETING, "world_size": 4, "rank_offset": rank} for rank in (1, 2, 3)
    ]


def test_an_engine_that_is_split_has_a_rank_for_each_of_its_gpus_but_sends_with_one():
    channel = channel_to(num_receivers=3, gpus_per_engine=2)
    assert channel.world_size == 7
    assert [channel.init_info(receiver)["rank_offset"] for receiver in range(3)] == [1, 3, 5]


def test_no_engine_beyond_the_last_receiver_has_a_rank():
    with pytest.raises(AssertionError):
        channel_to(num_receivers=2).init_info(2)


def test_receivers_are_told_names_types_and_shapes_in_the_order_of_sending():
    assert channel_to(1, tensors=(EMBEDDINGS, NORM)).update_info == {
        "names": ["model.embed_tokens.weight", "model.norm.weight"],
        "dtype_names": ["bfloat16", "float32"],
        "shapes": [[6, 4], [4]],
    }


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_told_is_what_is_sent_tensor_for_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool):
    monkeypatch.setattr(nccl, "DEVICE", "cpu")
    weights = checkpoint(tmp_path, tied=tied)
    told = channel_to(1, tensors=sent_tensors(weights)).update_info
    sent = list(CheckpointSource(channel_to(1), weights))
    assert [name for name, _ in sent] == told["names"]
    assert [tensor.dtype for _, tensor in sent] == [getattr(torch, name) for name in told["dtype_names"]]
    assert [list(tensor.shape) for _, tensor in sent] == told["shapes"]
    assert sorted(told["names"]) == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.norm.weight",
    ]
    assert all(tensor.equal(weights[name]) for name, tensor in sent)


def test_a_tied_output_head_is_sent_as_the_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nccl, "DEVICE", "cpu")
    sent = dict(CheckpointSource(channel_to(1), checkpoint(tmp_path, tied=True)))
    assert sent["lm_head.weight"].equal(sent["model.embed_tokens.weight"])


def test_a_model_leaves_the_last_broadcast_joins_this_one_and_takes_its_weights_in_that_order():
    llm: Any = RecordedLlm()
    channel = channel_to(num_receivers=2, tensors=(EMBEDDINGS,))
    receive(llm, channel, 1, version=7)
    assert llm.calls == [
        ("collective_rpc", leave_last_group),
        ("init_weight_transfer_engine", {"init_info": {**MEETING, "world_size": 3, "rank_offset": 2}}),
        ("collective_rpc", check_group),
        ("start_weight_update",),
        (
            "update_weights",
            {
                "update_info": {
                    "names": ["model.embed_tokens.weight"],
                    "dtype_names": ["bfloat16"],
                    "shapes": [[6, 4]],
                }
            },
        ),
        ("finish_weight_update", "7"),
    ]


def test_a_worker_without_nccl_takes_nothing_for_weights():
    """vLLM's communicator would let it take whatever is in memory."""
    worker = SimpleNamespace(weight_transfer_engine=SimpleNamespace(model_update_group=SimpleNamespace(disabled=True)))
    with pytest.raises(UserError, match=r"no NCCL in this process: set engines\.weight_transfer = 'object_store'"):
        check_group(worker)


def test_a_worker_ends_its_part_in_the_last_broadcast_if_it_had_one():
    recorded: Any = RecordedLlm()
    worker = SimpleNamespace(weight_transfer_engine=SimpleNamespace(shutdown=recorded.shutdown))
    worker.weight_transfer_engine.model_update_group = None
    leave_last_group(worker)
    worker.weight_transfer_engine.model_update_group = SimpleNamespace(destroy=recorded.destroy)
    leave_last_group(worker)
    assert recorded.calls == [("shutdown",), ("destroy",), ("shutdown",)]
