"""Serving under kills: whatever happens to one of two replicas, a client that asks once more gets its answer."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from jobs.bench_serve import make_run
from jobs.benchmarks.load import ask_while, summary
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.clinic.exam import make_questions
from medcritical_ray.clinic.world import load_world
from medcritical_ray.config_files import load_config
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.serving.keys import digest_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "demo.toml"
SETTINGS = ["serve.num_replicas=2", "serve.answer_timeout_s=4", "engines.kv_cache_gib=0.25", "engines.num_cpus=0.5"]
NUM_CLIENTS = 8
PATIENCE_S = 240
KEY = "key-of-the-kills"
REPLICA, ENGINE = "ray::ServeReplica", "VLLM::EngineCore"


def processes(title: str) -> dict[int, psutil.Process]:
    """Those of this process's own cluster, by number."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "".join(process.cmdline()[:1]).startswith(title):
                found[process.pid] = process
    return found


def is_gone(number: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    return True


def await_that(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not in {PATIENCE_S} s: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def served(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The application's name and port."""
    from jobs.serve import serving

    config = load_config(CONFIG, SETTINGS)
    run = make_run(tmp_path_factory.mktemp("kills") / "served", base_student_dir(), config, num_versions=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(run, config, "127.0.0.1", port, [digest_of(KEY.encode())]) as name:
        yield name, port


def num_running(name: str) -> int:
    from ray import serve

    return serve.status().applications[name].deployments["policies"].replica_states.get("RUNNING", 0)


def are_ready(name: str, before: Collection[int] = ()) -> bool:
    """Whether two replicas answer, not all of which were there before."""
    replicas = processes(REPLICA)
    return num_running(name) == len(replicas) == 2 and not replicas.keys() <= set(before)


@pytest.mark.parametrize(("title", "number"), [(REPLICA, signal.SIGKILL), (ENGINE, signal.SIGSTOP)])
def test_one_retry_cures_what_a_kill_breaks(served: tuple[str, int], title: str, number: signal.Signals):
    name, port = served
    prompts = [solve_prompt(q.unkeyed()) for q in make_questions(load_world(), "test", 100, seed=0, difficulty=3)]
    await_that(lambda: are_ready(name), "two replicas")
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_while, lambda: not ended.is_set(), port, "latest", prompts, NUM_CLIENTS, 1, KEY)
        try:
            time.sleep(5)
            before, struck_at = processes(REPLICA), time.monotonic()
            victim = min(each for each, process in processes(title).items() if {each, process.ppid()} & before.keys())
            os.kill(victim, number)
            await_that(lambda: is_gone(victim), f"{title} {victim} is gone")
            await_that(lambda: are_ready(name, before), "two replicas again")
            seconds = time.monotonic() - struck_at
            time.sleep(5)
        finally:
            ended.set()
        load = asked.result()
    outcome = f"two replicas again after {seconds:.1f} s, {len(load.retried)} requests retried"
    print(f"\n{number.name} to {title}: {outcome}, {summary([load])}")
    assert load.failures == []
    assert len(load.latencies_s) > NUM_CLIENTS
