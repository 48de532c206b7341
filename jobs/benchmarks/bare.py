"""vLLM as one uses it without this program, in a process like that of an engine of ours: as many threads, as nice."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from medcritical_ray.config import EnginesConfig, SamplingConfig
from medcritical_ray.engines.vllm_settings import set_environment, vllm_settings
from medcritical_ray.model_files import weight_files
from medcritical_ray.serving.tokenizer import write_tokenizer


@ray.remote(max_restarts=0)
class BareEngine:
    """`vllm.LLM`, with the settings of an engine of ours. It keeps no prefix from one call to the next: prompts come
    again here, and in no run."""

    def start(self, policy: Path, config: EnginesConfig, sampling: SamplingConfig) -> None:
        set_environment(VLLM_ENABLE_V1_MULTIPROCESSING="0")
        from vllm import LLM, SamplingParams

        with tempfile.TemporaryDirectory() as directory:
            write_tokenizer(policy, Path(directory))
            settings: dict[str, Any] = vllm_settings(policy, config, None, max_loras=1)
            self._llm = LLM(tokenizer=directory, generation_config="vllm", **settings)
        self._params = SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens
        )
        for seeded in (False, True):  # vLLM compiles what draws when it first does
            self.generate(["?"], seeded=seeded)

    def generate(self, prompts: list[str], *, seeded: bool) -> tuple[int, float]:
        """The tokens that it writes, and the seconds of the call."""
        params = [self._params.clone() for _ in prompts] if seeded else self._params
        if isinstance(params, list):
            for seed, each in enumerate(params):
                each.seed = seed
        self._llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return sum(len(output.outputs[0].token_ids) for output in outputs), seconds

    def reload(self, policy: Path) -> float:
        """The seconds of vLLM's own reload."""
        started = time.perf_counter()
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(policy)})
        self._llm.reset_prefix_cache()
        return time.perf_counter() - started

    def copy_bytes(self, policy: Path) -> float:
        """The seconds that it takes to copy all weights, which are in memory, into one piece."""
        files = [np.fromfile(path, dtype=np.uint8) for path in weight_files(policy)]
        started = time.perf_counter()
        packed = np.empty(sum(map(len, files)), dtype=np.uint8)
        np.concatenate(files, out=packed)
        return time.perf_counter() - started
