"""A driver on a cluster that scales: writes, loses a machine, trains, writes with the new policy; prints what it saw.

Run as `python autoscaled.py ADDRESS POLICY WORK`, by test_autoscaling.py.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import ray

from actors.team import RayTeam
from medcritical_ray.config import Config, SamplingConfig
from medcritical_ray.records import Demonstration
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.run.tables import write_part

CONFIG = Config.model_validate(
    {
        "run": {"name": "scaled"},
        "engines": {
            "num_engines": 2,
            "min_engines": 0,
            "max_in_flight": 1,
            "num_cpus": 1,
            "num_gpus": 0,
            "labels": {"group": "rollout"},
            "max_model_len": 128,
            "max_num_seqs": 64,
            "kv_cache_gib": 0.25,
        },
        "trainers": {"num_cpus": 1, "num_gpus": 0, "labels": {"group": "trainer"}, "timeout_s": 240},
        "sft": {"method": "full", "num_epochs": 1, "batch_size": 8, "max_length_tokens": 128, "learning_rate": 1e-2},
        "dpo": {"method": "full", "max_length_tokens": 128},
        "generate": {"sampling": {"max_tokens": 32}},
        "correct": {"sampling": {"max_tokens": 32}},
        "cluster": {"autoscales": True},
    }
)
SAMPLED = SamplingConfig(temperature=1.0, max_tokens=32)
NUM_BLOCKS_AFTER_THE_LOSS = 20
PATIENCE_S = 120.0


def main(address: str, policy: Path, work: Path) -> None:
    ray.init(address=address, log_to_driver=False)
    with watched() as phase, RayTeam(CONFIG) as team:
        phase("write")
        team.serve("generator", 0, policy)
        written = write_and_lose_a_machine(team)
        again = dict(filter(None, team.write("generator", 0, [block(0)], SAMPLED)))
        phase("train")
        trained = train(team, policy, work)
        phase("write with version 1")
        team.serve("generator", 1, trained)
        with_new = dict(filter(None, team.write("generator", 1, [block(0)], SAMPLED)))
        phase("end")
    print(
        json.dumps(
            {
                "each_block_once": [key for key, _ in written] == list(range(len(written))),
                "same_again": again[0] == written[0][1],
                "same_with_new": with_new[0] == written[0][1],
            }
        )
    )


@contextmanager
def watched() -> Iterator[object]:
    """Prints a line for each machine that comes or goes, until there is one again; yields who is told of a phase."""
    started, told, is_over, now = time.monotonic(), set[tuple[str, str]](), Event(), ["start"]

    def look() -> None:
        for node in ray.nodes():
            event = (node["NodeID"][-8:], "came" if node["Alive"] else "went")
            if event not in told:
                told.add(event)
                print(f"{time.monotonic() - started:6.1f} s  {now[0]}: {kind_of(node)}", *event, flush=True)

    def watch() -> None:
        while not is_over.wait(0.5):
            look()

    thread = Thread(target=watch)
    thread.start()
    try:
        yield lambda phase: now.__setitem__(0, phase)
        wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)
    finally:
        is_over.set()
        thread.join()
        look()


def kind_of(node: dict[str, Any]) -> str:
    return node["Labels"].get("group", "head")


def write_and_lose_a_machine(team: RayTeam) -> list[tuple[int, list[Completion]]]:
    """Writes until both engines are at work, ends the machine of one, and writes some more."""
    written: list[tuple[int, list[Completion]]] = []
    last = [None]

    def blocks() -> Iterator[tuple[int, list[Request]]]:
        yield from map(block, takewhile(lambda n: last[0] is None or n < last[0], count()))

    for answer in filter(None, team.write("generator", 0, blocks(), SAMPLED)):
        written.append(answer)
        if last[0] is None and team._pools["generator"].num_serving == 2:
            end_a_rollout_machine()
            last[0] = len(written) + NUM_BLOCKS_AFTER_THE_LOSS
    return written


def block(n: int) -> tuple[int, list[Request]]:
    return n, [Request(prompt=f" w{n % 50} w{i}", seed=100 * n + i) for i in range(8)]


def end_a_rollout_machine() -> None:
    node = next(node for node in ray.nodes() if node["Alive"] and kind_of(node) == "rollout")
    raylet = next(
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "raylet" and any(node["NodeID"] in word for word in process.info["cmdline"] or ())
    )
    os.kill(raylet.pid, signal.SIGKILL)


def train(team: RayTeam, policy: Path, work: Path) -> Path:
    rows = [Demonstration(question_id=f"q{n}", task="solve", prompt=f" w{n}", response=" w7 w8") for n in range(16)]
    write_part(work / "demonstrations", 0, rows, Demonstration)
    team.train_sft(policy, work / "demonstrations", work / "trained", name="sft", on_step=lambda _: None)
    return work / "trained"


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"machines are still there after {PATIENCE_S:g} s: {ray.nodes()}"
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
