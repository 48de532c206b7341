"""Times a weight update of a running engine against its restart: `medcritical bench-update`."""

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import options
from jobs.cli import run_job

if TYPE_CHECKING:
    from actors.pool import EnginePool
    from medcritical_ray.config import EnginesConfig

SUMMARY = "time a weight update of a running engine against its restart"
EXAMPLES = ("medcritical bench-update", "medcritical bench-update --policy my-model --repeats 3 --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, metavar="DIR", help="a model's directory; default: the clinic's student")
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="times that each is done, in turn; default: 5"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the seconds of each. Raises UserError if the directory holds no model that can be served."""
    from actors.cluster import connected
    from medcritical_ray.clinic.base import base_student_dir
    from medcritical_ray.config import ClusterConfig
    from medcritical_ray.errors import UserError
    from medcritical_ray.model_files import check_model

    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: must be at least 1")
    policy = args.policy or base_student_dir()
    size = check_model(policy)
    store_mib = max(200, 2 * size.num_bytes // 2**20)
    with connected(ClusterConfig(object_store_mib=store_mib), Path.cwd()) as cluster:
        seconds = _measure(policy, _engines(policy, on_gpu=cluster.num_gpus >= 1), args.repeats)
    result = {"policy": str(policy), "num_parameters": size.num_parameters, "repeats": args.repeats, **seconds}
    print(json.dumps(result) if args.json else _table(result))
    return 0


def _measure(policy: Path, engines: "EnginesConfig", repeats: int) -> dict[str, Any]:
    """The seconds of updates and of restarts, in turn, each from the call until the engine has confirmed its version.

    An update reads the weights from disk and sends them through the object store, as after any training.
    """
    updates, restarts = [], []
    with ExitStack() as pools:
        pool = _started(pools, policy, engines, name="bench-0")
        for number in range(1, repeats + 1):
            before = time.perf_counter()
            pool.broadcast(number, policy)
            between = time.perf_counter()
            pools.close()
            pool = _started(pools, policy, engines, name=f"bench-{number}")
            updates.append(between - before)
            restarts.append(time.perf_counter() - between)
    return {"update_s": _median_and_all(updates), "restart_s": _median_and_all(restarts)}


def _started(pools: ExitStack, policy: Path, engines: "EnginesConfig", *, name: str) -> "EnginePool":
    from actors.pool import EnginePool

    pool = pools.enter_context(EnginePool(engines, 0, policy, name=name))
    pool.wait_until_serving()
    return pool


def _median_and_all(seconds: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(seconds), 3), "all": [round(each, 3) for each in seconds]}


def _engines(policy: Path, *, on_gpu: bool) -> "EnginesConfig":
    from medcritical_ray.config import EnginesConfig
    from medcritical_ray.context import model_positions

    max_model_len = min(model_positions(policy) or 1024, 1024)
    return EnginesConfig(num_gpus=float(on_gpu), max_model_len=max_model_len, kv_cache_gib=1.0)


def _table(result: dict[str, Any]) -> str:
    """The medians side by side, and the range of each."""
    lines = [f"{result['policy']}: {result['num_parameters']:,} parameters, medians of {result['repeats']}"]
    for name, key in (("update", "update_s"), ("restart", "restart_s")):
        each = result[key]
        lines.append(f"{name:<8}{each['median']:9.3f} s   ({min(each['all']):.3f} to {max(each['all']):.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
