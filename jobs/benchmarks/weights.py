"""A new policy in two running engines, beside a restart of them, a reload from disk, and a copy of the bytes."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks.figures import Figure, Goal, in_turn

if TYPE_CHECKING:
    from actors.pool import EnginePool
    from medcritical_ray.config import EnginesConfig

NAME = "a new policy of 0.5 B parameters in two engines"
RESTART = Goal(name=NAME, unit="s", peer="a restart of both", target=50, ratio="peer / ours")
RELOAD = Goal(name=NAME, unit="s", peer="vLLM's own reload from disk in both", target=1.0, ratio="peer / ours")
COPY = Goal(name=NAME, unit="s", peer="copying the bytes once in each process", target=3.0, reach="at most")
NUM_ENGINES = 2
ARCHITECTURE: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
"""That of Qwen2.5-0.5B: 494 million parameters, 0.99 GB in bfloat16."""


def measure(repeats: int, scratch: Path) -> Sequence[Figure]:
    """Each from the call until both engines have confirmed; ours reads the weights from disk and checks their
    hashes, as after any training."""
    from actors.cluster import connected
    from medcritical_ray.config import ClusterConfig, EnginesConfig

    policy = random_policy(scratch, ARCHITECTURE)
    with connected(ClusterConfig(object_store_mib=2500), scratch) as cluster, ExitStack() as pools:
        engines = EnginesConfig(
            num_engines=NUM_ENGINES,
            num_cpus=0.25,
            num_gpus=0.25 * (cluster.num_gpus >= 1),
            max_model_len=256,
            kv_cache_gib=0.25,
            gpu_memory_utilization=0.2,
        )
        sides = _Sides(pools, policy, engines)
        ours, restart, reload, copy = in_turn(repeats, sides.update, sides.restart, sides.reload, sides.copy)
    goals = ((RESTART, restart), (RELOAD, reload), (COPY, copy))
    return [Figure(goal=goal, ours_each=ours, peer_each=peer) for goal, peer in goals]


class _Sides:
    def __init__(self, pools: ExitStack, policy: Path, engines: "EnginesConfig") -> None:
        import ray

        from jobs.benchmarks.bare import BareEngine
        from medcritical_ray.config import SamplingConfig

        self.pools, self.policy, self.engines = pools, policy, engines
        self.num_starts = self.version = 0
        self.pool = self._started()
        actor_class: Any = BareEngine  # its decorator hides its options from the type checker
        resources = {"num_cpus": engines.num_cpus, "num_gpus": engines.num_gpus}
        self.bare = [actor_class.options(**resources).remote() for _ in range(NUM_ENGINES)]
        starts = [each.start.remote(policy, engines, SamplingConfig()) for each in self.bare]
        ray.get(starts, timeout=engines.start_timeout_s)

    def update(self) -> float:
        self.version += 1
        started = time.perf_counter()
        self.pool.broadcast(self.version, self.policy)
        return time.perf_counter() - started

    def restart(self) -> float:
        started = time.perf_counter()
        self.pools.close()
        self.pool = self._started()
        return time.perf_counter() - started

    def reload(self) -> float:
        return self._slowest([each.reload.remote(self.policy) for each in self.bare])

    def copy(self) -> float:
        return self._slowest([each.copy_bytes.remote(self.policy) for each in self.bare])

    def _slowest(self, calls: list[Any]) -> float:
        import ray

        seconds: list[float] = ray.get(calls, timeout=self.engines.update_timeout_s)
        return max(seconds)

    def _started(self) -> "EnginePool":
        from actors.pool import EnginePool

        self.num_starts += 1
        name = f"weights-{self.num_starts}"
        pool = self.pools.enter_context(EnginePool(self.engines, self.version, self.policy, name=name))
        pool.wait_until_serving()
        return pool


def random_policy(scratch: Path, architecture: dict[str, Any]) -> Path:
    """An architecture with random weights, published as a run publishes them, with the clinic's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from medcritical_ray.chat import load_tokenizer
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.run.policies import PolicyStore

    torch.manual_seed(0)
    tokenizer = load_tokenizer(base_student_dir())
    config = Qwen2Config(**architecture, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model: Any = Qwen2ForCausalLM(config)  # a decorator hides the types of `to`
    model.to(torch.bfloat16).save_pretrained(scratch / "made")
    tokenizer.save_pretrained(scratch / "made")
    return PolicyStore(scratch / "policies").publish(0, scratch / "made", parent=None, metrics={}).path
