"""Times serving while policies are swapped, beside vLLM's own server: `medcritical bench-serve`."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.benchmarks.load import Load, ask_for, summary
from jobs.benchmarks.servers import running
from jobs.cli import run_job
from jobs.parts import options
from medcritical_ray.addresses import free_port

if TYPE_CHECKING:
    from medcritical_ray.config import Config
    from medcritical_ray.run.directory import RunDirectory

SUMMARY = "time serving while policies are swapped, beside vLLM's own server"
EXAMPLES = (
    "medcritical bench-serve",
    "medcritical bench-serve --policy runs/demo/policies/v0003 --seconds 30 --clients 8 --json",
)
NOISE = 1e-3
"""Of a weight's own size: enough that versions are not of the same bytes, too little to change how long texts are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, metavar="DIR", help="a model's directory; default: the clinic's student")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of each measurement; default: 60")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="that ask at the same time; default: 32")
    parser.add_argument("--swap-every", type=float, default=10, metavar="S", help="a new policy; default: 10 seconds")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="measurements of each server; default: 1")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the figures; 1 if a request failed. Raises UserError if the directory holds no model to be served."""
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.errors import UserError
    from medcritical_ray.model_files import check_model

    if min(args.seconds, args.clients, args.swap_every, args.rounds) <= 0:
        raise UserError("--seconds, --clients, --swap-every and --rounds: must be above 0")
    policy = args.policy or base_student_dir()
    size = check_model(policy)
    with tempfile.TemporaryDirectory(prefix="medcritical-bench-") as scratch:
        loads = measure(policy, args, Path(scratch))
    result = {"policy": str(policy), "num_parameters": size.num_parameters, **_settings(args)}
    result |= {name: summary(each) for name, each in loads.items()}
    result["throughput_ratio"] = round(result["served"]["requests_per_s"] / result["vllm"]["requests_per_s"], 3)
    print(json.dumps(result) if args.json else _table(result))
    return int(any(load.num_failed for load in loads["served"]))


def measure(policy: Path, args: argparse.Namespace, scratch: Path) -> dict[str, list[Load]]:
    """The loads of both servers, which are there side by side and are asked in turn."""
    from actors.cluster import connected
    from jobs.serve import serving
    from medcritical_ray.serving.keys import digest_of, new_key
    from medcritical_ray.serving.tokenizer import write_tokenizer

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers would give way to the clients, and vLLM would not
    key = new_key()
    num_swaps = int(args.rounds * args.seconds / args.swap_every)
    ports = free_port(), free_port()
    (scratch / "tokenizer").mkdir()
    write_tokenizer(policy, scratch / "tokenizer")
    loads: dict[str, list[Load]] = {"served": [], "vllm": []}
    with ExitStack() as stack:
        stack.enter_context(connected(bench_config(policy, on_gpu=False).cluster, scratch))
        config = bench_config(policy, on_gpu=_has_gpu())
        run = make_run(scratch / "bench-serve", policy, config, num_versions=num_swaps + 1)
        stack.enter_context(serving(run, config, "127.0.0.1", ports[0], [digest_of(key.encode())]))
        stack.enter_context(vllm_server(policy, config, scratch / "tokenizer", ports[1]))
        prompts = _prompts()
        for _ in range(args.rounds):
            with swapped(run, args.swap_every):
                loads["served"].append(ask_for(args.seconds, ports[0], "latest", prompts, args.clients, key))
            loads["vllm"].append(ask_for(args.seconds, ports[1], "policy", prompts, args.clients))
    return loads


def bench_config(policy: Path, *, on_gpu: bool) -> "Config":
    from medcritical_ray.config import Config
    from medcritical_ray.context import model_positions

    return Config.model_validate(
        {
            "generate": {"sampling": {"max_tokens": 110}},
            "correct": {"sampling": {"max_tokens": 120}},
            "engines": {
                "num_cpus": 0.5,
                "num_gpus": float(on_gpu),
                "max_model_len": min(model_positions(policy) or 1024, 1024),
                "kv_cache_gib": 0.5,
                "gpu_memory_utilization": 0.4,
            },
        }
    )


def make_run(path: Path, policy: Path, config: "Config", *, num_versions: int, noise: float = NOISE) -> "RunDirectory":
    """A run that has adopted version 0, the policy as it is, and has published others that differ from it a little."""
    import torch
    from safetensors.torch import load_file, save_file

    from medcritical_ray.model_files import weight_files
    from medcritical_ray.run.directory import RunDirectory
    from medcritical_ray.run.policies import PolicyStore
    from medcritical_ray.run.record import new_record

    run = RunDirectory.create(path, new_record(config.model_dump(mode="json")), resume_command="")
    for version in range(num_versions):
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            source = Path(directory) / "policy"
            shutil.copytree(policy, source)
            torch.manual_seed(version)
            for file in weight_files(source) if version else []:
                weights = load_file(file)
                noisy = {name: each * (1 + noise * torch.randn_like(each)) for name, each in weights.items()}
                save_file(noisy, file, metadata={"format": "pt"})
            PolicyStore(run.policies).publish(version, source, parent=None, metrics={})
    run.finish_iteration(0, {"adopted_version": 0})
    return run


@contextmanager
def swapped(run: "RunDirectory", every_s: float) -> Iterator[None]:
    """While the block lasts, the run adopts its next version every so many seconds, up to the last that there is."""
    from medcritical_ray.run.policies import PolicyStore

    ended, last = threading.Event(), PolicyStore(run.policies).versions()[-1]

    def adopt() -> None:
        while not ended.wait(every_s):
            version = sum(1 for _ in (run.path / "iterations").iterdir())
            if version > last:
                return
            run.finish_iteration(version, {"adopted_version": version})

    thread = threading.Thread(target=adopt)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def vllm_server(policy: Path, config: "Config", tokenizer: Path, port: int) -> Iterator[None]:
    """vLLM's own server with the same settings, once it answers, as the model `policy`."""
    from medcritical_ray.engines.vllm_settings import vllm_settings

    settings = vllm_settings(policy, config.engines, None, max_loras=1)
    settings |= {"tokenizer": tokenizer, "served_model_name": "policy", "generation_config": "vllm"}
    settings |= {"host": "127.0.0.1", "port": port, "disable_uvicorn_access_log": True}
    words = [word for name, value in settings.items() if name != "model" for word in _option(name, value)]
    with running(
        [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(policy), *words],
        partial(urllib.request.urlopen, f"http://127.0.0.1:{port}/health", timeout=5),
        tokenizer.parent / "vllm.log",
        timeout_s=config.engines.start_timeout_s,
        environment={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"},
    ):
        yield


def _option(name: str, value: Any) -> list[str]:
    words = name.replace("_", "-")
    return [f"--{words}" if value else f"--no-{words}"] if isinstance(value, bool) else [f"--{words}", str(value)]


def _prompts() -> list[str]:
    from medcritical_ray.clinic.exam import make_questions
    from medcritical_ray.clinic.world import load_world
    from medcritical_ray.prompts import solve_prompt

    return [solve_prompt(each.unkeyed()) for each in make_questions(load_world(), "test", 500, seed=0, difficulty=3)]


def _has_gpu() -> bool:
    import ray

    return ray.cluster_resources().get("GPU", 0) >= 1


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("seconds", "clients", "swap_every", "rounds")}


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['policy']}: {result['num_parameters']:,} parameters, {result['clients']} clients, "
        f"{result['rounds']} x {result['seconds']:g} s, a policy every {result['swap_every']:g} s"
    ]
    lines.append(f"{'':8}{'requests':>9}{'failed':>8}{'per s':>8}{'p50 s':>8}{'p99 s':>8}{'policies':>10}")
    for name in ("served", "vllm"):
        each = result[name]
        figures = f"{each['requests_per_s']:8.1f}{each['p50_s']:8.3f}{each['p99_s']:8.3f}{each['num_models']:10d}"
        lines.append(f"{name:8}{each['num_requests']:9d}{each['num_failed']:8d}{figures}")
    return "\n".join([*lines, f"served / vllm: {result['throughput_ratio']:.3f}"])


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
