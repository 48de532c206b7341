"""What the integration tests share: one Ray cluster and one server a session, and policies of a tiny random model."""

import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore, s3_server
from scraping import scraped
from tiny_run import KilledRun, finish, kill_after, start

from jobs.benchmarks.servers import running
from medcritical_ray.addresses import free_port
from medcritical_ray.config import EnginesConfig
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.state import run_state

ENGINES = EnginesConfig(
    num_engines=1,
    num_cpus=0.5,
    num_gpus=0,
    dtype="bfloat16",
    max_model_len=128,
    max_num_seqs=64,
    kv_cache_gib=0.25,
    start_timeout_s=240,
    update_timeout_s=60,
    request_timeout_s=120,
    max_restarts=2,
)
SERVER_PATIENCE_S = 240


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of this session's own; it leaves nothing in the home directory and listens on loopback alone."""
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            _node_ip_address="127.0.0.1",
            _temp_dir=directory,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def store() -> Iterator[ObjectStore]:
    """An S3 server of this session's own."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def killed_run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> KilledRun:
    """A run on a local path."""
    import ray

    cwd = tmp_path_factory.mktemp("killed")
    run = RunDirectory(cwd / "here" / "tiny")
    with scraped(ray.nodes()[0]["MetricsExportPort"]) as seen:
        exit_code, output = finish(start(cwd, job="sft"))
        assert exit_code == 0, output
        assert "Stage 2: medcritical self-play --config" in output
        assert (run_state(run).state, run_state(run).cause) == ("stopped", "as asked, after stage 1")
        kill_after(start(cwd, "--resume"), run, 1, "pair")
        assert run_state(run).state == "stopped"
        assert PolicyStore(run.policies).versions() == [0]
        exit_code, output = finish(start(cwd, "--resume"))
    assert exit_code == 0, output
    return KilledRun(run, output, seen)


@pytest.fixture(scope="session")
def student_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's own server with the clinic's base student, in float32, as the model `student`.

    It takes the tokenizer from a directory without a model's config, beside which transformers would take it for
    another. Its chat template writes what the student reads: the prompt and a line break.
    """
    from medcritical_ray.clinic.base import base_student_dir

    directory, student = tmp_path_factory.mktemp("server"), base_student_dir()
    tokenizer, template, log = directory / "tokenizer", directory / "template.jinja", directory / "server.log"
    shutil.copytree(student, tokenizer, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    template.write_text(r'{{ messages[0].content + "\n" }}')
    port = free_port()
    options = {
        "--model": student,
        "--served-model-name": "student",
        "--tokenizer": tokenizer,
        "--chat-template": template,
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": "float32",
        "--max-model-len": 320,
        "--kv-cache-memory-bytes": 2**28,
    }
    words = [str(word) for option in options.items() for word in option]
    with running(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--enforce-eager"],
        partial(urllib.request.urlopen, f"http://127.0.0.1:{port}/health", timeout=5),
        log,
        timeout_s=SERVER_PATIENCE_S,
        environment={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"},
    ):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="session")
def engines_config() -> EnginesConfig:
    return ENGINES


@pytest.fixture(scope="session")
def tied_policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories of two policies of one tiny random Qwen2 whose output head is its embeddings."""
    return _policies(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="session")
def untied_policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As `tied_policies`, with an output head of its own."""
    return _policies(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def adapter_policies(tied_policies: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories of two published LoRA adapters on the first of `tied_policies`, of rank 4, versions 1 and 2."""
    directory = tmp_path_factory.mktemp("adapters")
    store = PolicyStore(directory / "policies")
    base = tied_policies[0]
    for version in (1, 2):
        source = _random_adapter(base, directory / f"adapter-{version}", seed=version)
        store.publish(version, source, parent=None, metrics={}, kind="adapter", base=str(base))
    return store.path_of(1), store.path_of(2)


def _policies(directory: Path, *, tied: bool) -> tuple[Path, Path]:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _word_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=1,
    )
    for seed, name in enumerate(("base", "trained")):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    return directory / "base", directory / "trained"


def _word_tokenizer() -> Any:
    """One token for each of 60 words, with the space before it, so that a text is its tokens and nothing else."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "\n", *(f" w{n}" for n in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|\n"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )


def _random_adapter(base: Path, directory: Path, *, seed: int) -> Path:
    """An adapter whose weights are large enough to change what is written."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(Qwen2ForCausalLM.from_pretrained(base), lora).save_pretrained(directory)
    return directory
