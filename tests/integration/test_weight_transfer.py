"""Weights from one engine to others, through the installed vLLM's own code of both ends.

Without GPUs something else stands for NCCL and CUDA's streams, and a plain model for an engine's; with two of them it
is all real.
"""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import save
from vllm import LLM, EngineArgs
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer import nccl_engine
from without_nccl import LIMIT_S, PlainEngine, StoreCommunicator, go_without_gpus, spelled_out

from actors.engine_actor import EngineActor
from actors.pool import EnginePool
from medcritical_ray.addresses import free_port
from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines import nccl
from medcritical_ray.engines.channel import Channel
from medcritical_ray.engines.engine import Engine
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.engines.vllm_settings import vllm_settings
from medcritical_ray.engines.weights import read_blobs
from medcritical_ray.errors import UserError
from medcritical_ray.rollouts import Completion, Request

pytestmark = pytest.mark.integration

GREEDY = SamplingConfig(temperature=0.0, max_tokens=24)
REQUESTS = [Request(prompt="".join(f" w{(n * k) % 60}" for k in range(1, 9)), seed=n) for n in range(16)]
ANSWER_S = 120


@pytest.fixture
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    go_without_gpus(monkeypatch)
    return monkeypatch


def offered(sender: Engine, policy_dir: Path, num_receivers: int) -> Channel:
    blobs = read_blobs(policy_dir)
    return sender.offer_channel(1, blobs, num_receivers, address="127.0.0.1", port=free_port())


def broadcast(sender: Engine, receivers: list[Engine], version: int, policy_dir: Path) -> None:
    """As a pool's engines do it, each in a process of its own."""
    channel = offered(sender, policy_dir, len(receivers))
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(sender.send_weights, version, read_blobs(policy_dir), channel)]
        for n, receiver in enumerate(receivers):
            calls.append(threads.submit(receiver.receive_weights, version, channel, n))
        for call in calls:
            call.result(LIMIT_S)


@pytest.mark.parametrize("gpus_per_engine", [1, 2])
@pytest.mark.parametrize("policies", ["tied_policies", "untied_policies"])
def test_every_receiver_ends_with_the_senders_weights_in_its_own_type_whichever_engine_sends(
    policies: str, gpus_per_engine: int, request: pytest.FixtureRequest, without_gpus: pytest.MonkeyPatch
):
    base, trained = request.getfixturevalue(policies)
    plain = [PlainEngine(base, gpus_per_engine, without_gpus) for _ in range(3)]
    first, second, third = [each.engine for each in plain]
    broadcast(first, [second, third], 1, trained)
    assert [each.engine.version for each in plain] == [0, 1, 1]
    assert [each.version_told for each in plain] == ["", "1", "1"]
    assert [each.num_cache_resets for each in plain] == [0, 1, 1]
    received = [model for each in plain[1:] for model in each.models]
    assert all(model.holds(trained) and model.num_loads > 2 for model in received)
    groups = [worker.weight_transfer_engine.model_update_group for worker in plain[2].workers]
    broadcast(second, [first, third], 2, base)
    assert [each.engine.version for each in plain] == [2, 1, 2]
    assert [group.is_left for group in groups] == [True] * gpus_per_engine
    assert all(model.holds(base) for each in (plain[0], plain[2]) for model in each.models)
    assert all(model.holds(trained) for model in plain[1].models)


def test_an_actor_sends_weights_and_takes_them_itself_and_another_receives_them(
    tied_policies: tuple[Path, Path], without_gpus: pytest.MonkeyPatch
):
    base, trained = tied_policies
    plain = [PlainEngine(base, 1, without_gpus) for _ in range(2)]
    sender, receiver = (actor_of(each.engine) for each in plain)
    policy, blobs = ServedPolicy(version=1, model_dir=trained), read_blobs(trained)
    channel = sender.offer_channel(policy, 1, *blobs)
    with ThreadPoolExecutor() as threads:
        sent = threads.submit(sender.send, policy, channel, *blobs)
        assert threads.submit(receiver.receive, policy, channel, 0).result(LIMIT_S) == 1
        assert sent.result(LIMIT_S) == 1
    assert [each.models[0].holds(trained) for each in plain] == [True, True]


def actor_of(engine: Engine) -> Any:
    """What runs in an engine's process, without the process."""
    actor = EngineActor.__ray_metadata__.modified_class("one")
    actor._engine = engine
    return actor


def test_weights_of_another_model_are_refused_by_all_before_anybody_waits_for_others(
    tied_policies: tuple[Path, Path], untied_policies: tuple[Path, Path], without_gpus: pytest.MonkeyPatch
):
    base, trained = tied_policies
    sender, receiver = (PlainEngine(base, 1, without_gpus).engine for _ in range(2))
    good = offered(sender, trained, 1)
    other = [save({"lm_head.bias": torch.zeros(2)})]
    with pytest.raises(UserError, match=r"policy version 1 is not of the model .* \d+ tensors missing, 1 unknown"):
        sender.offer_channel(1, other, 1, address="127.0.0.1", port=1)
    with pytest.raises(UserError, match="have an output head of their own"):
        offered(sender, untied_policies[1], 1)
    with pytest.raises(UserError, match=r"\d+ tensors missing, 1 unknown"):
        sender.send_weights(1, other, good)
    bad = Channel(
        address="127.0.0.1",
        port=1,
        num_receivers=1,
        gpus_per_engine=1,
        tensors=nccl.sent_tensors({"lm_head.bias": torch.zeros(2)}),
    )
    with pytest.raises(UserError, match=r"\d+ tensors missing, 1 unknown"):
        receiver.receive_weights(1, bad, 0)
    assert (sender.version, receiver.version) == (0, 0)


def test_a_receiver_that_fails_half_way_serves_nothing(
    tied_policies: tuple[Path, Path], without_gpus: pytest.MonkeyPatch
):
    base, trained = tied_policies
    plain = [PlainEngine(base, 1, without_gpus) for _ in range(2)]
    without_gpus.setattr(StoreCommunicator, "broadcast", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broadcast(plain[0].engine, [plain[1].engine], 1, trained)
    assert [each.engine.version for each in plain] == [0, None]


def test_a_sender_without_nccl_says_so_and_sends_nothing(
    tied_policies: tuple[Path, Path], without_gpus: pytest.MonkeyPatch
):
    sender = PlainEngine(tied_policies[0], 1, without_gpus).engine
    without_gpus.setattr(StoreCommunicator, "disabled", True)
    without_gpus.setattr(StoreCommunicator, "broadcast", lambda *_, **__: pytest.fail("something was sent"))
    alone = offered(sender, tied_policies[1], 0)
    with pytest.raises(UserError, match="no NCCL in this process"):
        sender.send_weights(1, read_blobs(tied_policies[1]), alone)


def test_a_sender_notices_that_what_it_sends_is_not_what_the_receivers_were_told(
    tied_policies: tuple[Path, Path], without_gpus: pytest.MonkeyPatch
):
    weights = spelled_out(tied_policies[0])
    channel = Channel(
        address="127.0.0.1", port=1, num_receivers=1, gpus_per_engine=1, tensors=nccl.sent_tensors(weights)[::-1]
    )
    source: Any = nccl.CheckpointSource(channel, weights)
    checked = nccl_engine.NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
    with pytest.raises(ValueError, match=r"metadata\(\) disagrees with iteration at index 0"):
        list(checked)


def test_what_the_ends_are_told_are_fields_that_vllm_knows():
    tensors = nccl.sent_tensors({"model.norm.weight": torch.zeros(4, dtype=torch.bfloat16)})
    channel = Channel(address="10.0.0.7", port=40123, num_receivers=2, gpus_per_engine=2, tensors=tensors)
    joined = nccl_engine.NCCLWeightTransferInitInfo(**channel.init_info(1))
    assert (joined.master_address, joined.master_port) == ("10.0.0.7", 40123)
    assert (joined.rank_offset, joined.world_size, joined.packed) == (3, 5, True)
    sender = nccl_engine.NCCLTrainerInitInfo(rank=0, **channel.meeting)
    assert sender.is_sender
    agreed = ("master_address", "master_port", "world_size", "packed", "packed_buffer_size_bytes", "packed_num_buffers")
    assert [getattr(sender, name) for name in agreed] == [getattr(joined, name) for name in agreed]
    told = nccl_engine.NCCLWeightTransferUpdateInfo(**channel.update_info)
    assert (told.names, told.dtype_names, told.shapes) == (["model.norm.weight"], ["bfloat16"], [[4]])


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (LLM.init_weight_transfer_engine, ({"init_info": {}},)),
        (LLM.start_weight_update, ()),
        (LLM.update_weights, ({"update_info": {}},)),
        (LLM.finish_weight_update, ("7",)),
        (LLM.collective_rpc, (nccl.check_group,)),
        (LLM.reset_prefix_cache, ()),
    ],
)
def test_what_a_model_is_asked_it_can_be_asked(method: Callable[..., Any], arguments: tuple[Any, ...]):
    inspect.signature(method).bind(None, *arguments)


def test_an_engine_on_a_gpu_is_started_with_the_receiving_end_where_the_config_says_so(
    tied_policies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    through_gpus = EnginesConfig(weight_transfer="nccl")
    monkeypatch.setattr("vllm.platforms.current_platform", SimpleNamespace(is_cpu=lambda: False))
    settings = vllm_settings(tied_policies[0], through_gpus, None, max_loras=1)
    assert "weight_transfer_config" not in vllm_settings(tied_policies[0], EnginesConfig(), None, max_loras=1)
    monkeypatch.setattr("vllm.platforms.current_platform", SimpleNamespace(is_cpu=lambda: True))
    assert "weight_transfer_config" not in vllm_settings(tied_policies[0], through_gpus, None, max_loras=1)
    monkeypatch.undo()
    assert EngineArgs(**settings).weight_transfer_config == WeightTransferConfig(backend="nccl")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("policies", ["tied_policies", "untied_policies"])
def test_engines_on_two_gpus_write_after_a_broadcast_what_freshly_started_ones_write(
    policies: str, request: pytest.FixtureRequest, ray_cluster: None, engines_config: EnginesConfig
):
    """This test has not been run yet."""
    base, trained = request.getfixturevalue(policies)
    changed = {"num_engines": 2, "num_gpus": 1.0, "weight_transfer": "nccl", "start_timeout_s": 600}
    config = engines_config.model_copy(update=changed)
    with EnginePool(config, 1, trained, name=f"fresh-{policies}") as pool:
        pool.wait_until_serving()
        written_by_fresh = written(f"fresh-{policies}", 1)
    with EnginePool(config, 0, base, name=policies) as pool:
        pool.wait_until_serving()
        before = written(policies, 0)
        pool.broadcast(1, trained)
        assert written(policies, 1) == written_by_fresh != before
        assert received(f"{policies}-1") == "1"
        pool.broadcast(2, base)
        assert written(policies, 2) == before
        assert received(f"{policies}-1") == "2"
        assert [engine.health.num_deaths for engine in pool.states] == [0, 0]


def written(pool: str, version: int) -> list[list[Completion]]:
    """What each of two engines writes by itself, asked for the same in one block."""
    engines = [ray.get_actor(f"{pool}-{n}#1") for n in range(2)]
    return ray.get([engine.generate.remote(REQUESTS, GREEDY, version) for engine in engines], timeout=ANSWER_S)


def received(engine: str) -> str:
    """The version that vLLM was told with the last weights that came from another engine."""
    asked = ray.get_actor(f"{engine}#1").__ray_call__
    return ray.get(asked.remote(lambda actor: actor._engine._llm.get_weight_version()), timeout=ANSWER_S)
