"""Whether every machine of a cluster sees the place that a run lies in."""

import socket
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medcritical_ray.config import Config
from medcritical_ray.errors import MedCriticalError, UserError, WaitTimeout
from medcritical_ray.store.locations import is_uri, runs_root
from medcritical_ray.store.remote import Remote


def check_storage(config: Config) -> None:
    """Has every other machine read what this one writes to the directory of runs, and write there itself; or, for a
    URI, look into it.

    Needs a Ray that is initialised. Raises UserError, naming the machines that cannot, and WaitTimeout for those that
    do not answer within `cluster.connect_timeout_s`.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not nodes:
        return
    directory, token = config.run.directory, uuid4().hex
    probe_file = runs_root(directory) / f".probe-{token}"
    try:
        if not is_uri(directory):
            _write(probe_file, token)
        _tell_faults(_ask_all(nodes, directory, probe_file, token, config.cluster.connect_timeout_s), directory)
    finally:
        with suppress(OSError):
            probe_file.unlink()


def _write(probe_file: Path, token: str) -> None:
    try:
        probe_file.parent.mkdir(parents=True, exist_ok=True)
        probe_file.write_text(token, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{probe_file.parent} cannot be written ({error.strerror}): choose another run.directory"
        ) from None


def fault_of_storage(directory: str, probe_file: Path, token: str) -> str | None:
    """What this machine cannot do with the directory of runs; None if nothing."""
    try:
        if is_uri(directory):
            Remote(directory).check()
            return None
        if probe_file.read_text(encoding="utf-8") != token:
            return f"{probe_file.parent} there is another directory than on the driver's machine"
        own = probe_file.with_name(f"{probe_file.name}-{socket.gethostname()}")
        own.write_text(token, encoding="utf-8")
        own.unlink()
    except FileNotFoundError:
        return f"{probe_file.parent} there is not the directory of the driver's machine"
    except OSError as error:
        return f"{probe_file.parent} cannot be written there: {error.strerror}"
    except MedCriticalError as error:
        return str(error)
    return None


def _ask_all(
    nodes: list[dict[str, str]], directory: str, probe_file: Path, token: str, timeout_s: float
) -> dict[str, str | None]:
    """Address of a machine -> its fault."""
    task = ray.remote(num_cpus=0, max_retries=0)(fault_of_storage)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            directory, probe_file, token
        ): node["NodeManagerAddress"]
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
    if silent:
        names = ", ".join(asked[ref] for ref in silent)
        raise WaitTimeout(
            f"{names} did not say within {timeout_s:g} s whether run.directory = {directory!r} is there: raise "
            "cluster.connect_timeout_s, or see to these nodes"
        )
    return {asked[ref]: _answer(ref) for ref in answered}


def _answer(ref: ray.ObjectRef) -> str | None:
    try:
        fault: str | None = ray.get(ref)
    except RayError as error:
        return f"it could not be asked: {str(error).strip().splitlines()[0]}"
    return fault


def _tell_faults(faults: dict[str, str | None], directory: str) -> None:
    told = [f"{node}: {fault}" for node, fault in faults.items() if fault]
    if told:
        raise UserError(
            f"run.directory = {directory!r} is not shared by all nodes ({'; '.join(told)}): choose a directory on a "
            "file system that all of them mount, or the URI of an object store"
        )
