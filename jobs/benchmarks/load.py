"""Clients that ask a server at the same time, and what they saw."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 120.0
RETRY_S = 1.0
"""What the server asks for (Retry-After)."""


@dataclass(slots=True)
class Load:
    """What clients saw in `seconds`: the latency of each request in seconds, who answered, what failed at first and was
    asked again, and what failed for good."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        return len(self.failures)


def ask_for(seconds: float, port: int, model: str, prompts: list[str], num_clients: int, key: str = "") -> Load:
    """As `ask_while`, until the time is up."""
    ends = time.monotonic() + seconds
    return ask_while(lambda: time.monotonic() < ends, port, model, prompts, num_clients, key=key)


def ask_while(
    is_on: Callable[[], bool],
    port: int,
    model: str,
    prompts: list[str],
    num_clients: int,
    num_retries: int = 0,
    key: str = "",
) -> Load:
    """Has clients ask, greedily and each after its own last answer, for as long as it is on; who has asked is answered.

    They speak HTTP and no more: on the machine of the server, a client of the API would take much of its CPUs.
    """
    load, turns, began = Load(), itertools.cycle(prompts), time.monotonic()
    arguments = (load, is_on, port, model, turns, num_retries, key)
    threads = [threading.Thread(target=_ask, args=arguments) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - began
    return load


def summary(loads: list[Load]) -> dict[str, Any]:
    """The figures of all measurements of a server together."""
    import numpy as np

    latencies = [latency for load in loads for latency in load.latencies_s]
    p50_s, p99_s = np.quantile(latencies or [np.nan], [0.5, 0.99])
    seconds = sum(load.seconds for load in loads)
    failures = [failure for load in loads for failure in load.failures]
    return {
        "num_requests": len(latencies),
        "num_failed": len(failures),
        "failures": failures[:5],
        "requests_per_s": round(len(latencies) / seconds, 2),
        "p50_s": round(float(p50_s), 4),
        "p99_s": round(float(p99_s), 4),
        "num_models": len({model for load in loads for model in load.models}),
    }


def _ask(
    load: Load, is_on: Callable[[], bool], port: int, model: str, prompts: Iterable[str], num_retries: int, key: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for prompt in itertools.takewhile(lambda _: is_on(), prompts):
        began = time.monotonic()
        for failed in [*[load.retried] * num_retries, load.failures]:
            try:
                load.models.append(_answer(connection, model, prompt, key)["model"])
                load.latencies_s.append(time.monotonic() - began)
                break
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                failed.append(repr(error)[:300])
                connection.close()
                time.sleep(RETRY_S)
    connection.close()


def _answer(connection: http.client.HTTPConnection, model: str, prompt: str, key: str) -> dict[str, Any]:
    """Raises ValueError, with what the server says, unless it answers."""
    asked = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 110}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
    response = connection.getresponse()
    body = response.read()
    if response.status != http.client.OK:
        raise ValueError(f"{response.status}: {body[:200]!r}")
    answer: dict[str, Any] = json.loads(body)
    return answer
