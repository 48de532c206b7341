"""Serves the policies of a run behind the OpenAI API: `medcritical serve --run DIR`."""

import argparse
import logging
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import note, run_job, say
from jobs.parts import options
from medcritical_ray.addresses import joined_address
from medcritical_ray.errors import RunFailed, UserError, WaitTimeout

if TYPE_CHECKING:
    from ray.serve import Application

    from medcritical_ray.config import Config
    from medcritical_ray.planning.fit import ClusterResources
    from medcritical_ray.run.directory import RunDirectory

SUMMARY = "serve every policy of a run behind the OpenAI API, also while the run goes on"
EXAMPLES = (
    "medcritical serve --run runs/demo",
    "medcritical serve --run runs/demo --host 0.0.0.0 --port 8080 --api-key-file keys.txt",
    "medcritical serve --run runs/demo --set serve.max_tokens=512",
)
_ELSEWHERE = "serve this run on another cluster (cluster.address)"
LOOK_S = 0.5
ANSWER_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run's directory, such as runs/demo")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="who may ask: one key per line; default: a new key, told once"
    )
    options.add_set(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until it is interrupted or terminated. Raises UserError before anything starts if an input is wrong."""
    from jobs.parts.connecting import connected

    run, config = run_and_config(args.run, args.set)
    keys, news = who_may_ask(args.api_key_file)
    if not joined_address(config.cluster):
        check_port(args.host, args.port)
    with connected(config.cluster, run.path, shows_output=True) as resources, suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        check_replicas_fit(run, config, resources)
        with serving(run, config, args.host, args.port, keys) as name:
            say(f"{name} is served at http://{_shown(args.host)}:{args.port}/v1 until Ctrl-C", *news)
            signal.pause()
    return 0


def application(args: dict[str, Any]) -> "Application":
    """The application for a Serve config (`import_path: jobs.serve:application`), such as that of a RayService.

    `args` has "run", "api_key_file" and, if anything is to differ from the run's config, "set", a list of KEY=VALUE.
    Raises UserError.
    """
    unknown = sorted(args.keys() - {"run", "api_key_file", "set"})
    if unknown or not {"run", "api_key_file"} <= args.keys():
        raise UserError(f"args: must be run, api_key_file and perhaps set, not {', '.join(sorted(args)) or 'nothing'}")
    run, config = run_and_config(Path(args["run"]), args.get("set", []))
    from actors.serving import make_application

    return make_application(run.path, config, Path(args["api_key_file"]))


def run_and_config(path: Path, overrides: list[str]) -> "tuple[RunDirectory, Config]":
    """The run and its config. Raises UserError if there is none, or no policy in it."""
    from medcritical_ray.config_files import with_overrides
    from medcritical_ray.run.policies import PolicyStore
    from medcritical_ray.run.state import run_config

    run = options.opened_run(path.resolve())
    if not PolicyStore(run.policies).versions():
        raise UserError(f"--run {path}: the run has published no policy yet: wait until stage 1 is done")
    config = run_config(run, "serve it with the version that made it")
    return run, with_overrides(config, overrides, str(run.path / "run.json"))


def who_may_ask(key_file: Path | None) -> "tuple[Path | list[bytes], list[str]]":
    """The file of keys, or else the digest of a new one; and what is told of that, which is kept nowhere.

    Raises UserError if the file holds no key.
    """
    from medcritical_ray.serving.keys import digest_of, new_key, read_keys

    if key_file is not None:
        read_keys(key_file)
        return key_file, []
    key = new_key()
    return [digest_of(key.encode())], [f"key, told this once: {key} (--api-key-file takes keys of your own)"]


def check_port(host: str, port: int) -> None:
    """Raises UserError if the port cannot be had."""
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error}") from None


def check_others(name: str, others: Collection[str]) -> None:
    """Raises UserError if the applications of a Serve that is there already leave no room for one of this name."""
    if name in others:
        raise UserError(f"Serve has an application {name!r} on this cluster already: end that one, or {_ELSEWHERE}")


def check_replicas_fit(run: "RunDirectory", config: "Config", resources: "ClusterResources") -> None:
    """Raises UserError, naming what is short and what to change, if the engines do not fit the cluster."""
    from medcritical_ray.engines.served import served_policy
    from medcritical_ray.model_files import check_model
    from medcritical_ray.planning.fit import check_engines_fit
    from medcritical_ray.run.policies import PolicyStore
    from medcritical_ray.run.state import adopted_version

    version = adopted_version(run)
    first = served_policy(version, PolicyStore(run.policies).get(version).path)
    served = [(config, check_model(first.model_dir))]
    check_engines_fit(served, config.serve.num_replicas, resources, knob="serve.num_replicas")


@contextmanager
def serving(run: "RunDirectory", config: "Config", host: str, port: int, keys: "Path | list[bytes]") -> Iterator[str]:
    """Yields the application's name, that of the run, once it answers; it is gone when the block ends.

    `keys` is a file of those who may ask, or has the digests of their keys.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from actors.serving import make_application

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    name, before = run.path.name, serve.status()
    if before.proxies:
        check_others(name, before.applications)
    else:
        check_port(host, port)
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
    target = serve.RunTarget(make_application(run.path, config, keys), name=name, route_prefix="/")
    try:
        check_answer(host, port)
        note(f"starting engines of {name} ({config.serve.num_replicas}), which takes a minute or so")
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        await_running(name, config.engines.start_timeout_s)
        yield name
    except RayServeException as error:
        raise UserError(f"{getattr(error, 'cause', error)} End the other one, or {_ELSEWHERE}") from None
    finally:
        note(f"stopping {name}")
        serve.delete(name)
        if joined_address(config.cluster) and not before.proxies and not serve.status().applications:
            serve.shutdown()


def await_running(name: str, timeout_s: float) -> None:
    """Raises RunFailed if the application cannot be started, WaitTimeout if it is not there in time."""
    deadline = time.monotonic() + timeout_s
    while (state := _state(name))[0] != "RUNNING":
        status, reason = state
        if status == "DEPLOY_FAILED":
            raise RunFailed(f"{name} cannot be served: {reason}")
        if time.monotonic() > deadline:
            raise WaitTimeout(f"{name} is not served after {timeout_s:g} s ({reason}): raise engines.start_timeout_s")
        time.sleep(LOOK_S)


def _state(name: str) -> tuple[str, str]:
    """The application's status, as Serve calls it, and the last line of what Serve says about it."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return "", "unknown to Serve"
    messages = [each.message for each in application.deployments.values()]
    lines = "\n".join([application.message, *messages]).strip().splitlines()
    return application.status, lines[-1] if lines else application.status


def check_answer(host: str, port: int) -> None:
    """Raises RunFailed if nobody listens: the cluster's Serve keeps the address that it was started with."""
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        raise RunFailed(
            f"nobody listens at --host {host} --port {port} ({error}): Serve runs on this cluster already, at another "
            "address: name that, or shut it down with `serve shutdown`"
        ) from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    sys.exit(run_job(sys.modules[__name__]))
