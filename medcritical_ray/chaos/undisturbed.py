"""The run that others are compared with: when it may be used again, and what its phases are."""

import hashlib
from pathlib import Path
from typing import Any

import medcritical_ray
from medcritical_ray.chaos.schedule import Phase
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import RunRecord

_PACKAGES = ("actors", "jobs", "medcritical_ray")


def phases_of(run: RunDirectory) -> list[Phase]:
    """The phases of a finished run, in their order, but for those that take no time worth telling."""
    done = [(event["iteration"], event["phase"]) for event in run.events() if event["event"] == "phase done"]
    results = [(iteration, name, run.result(iteration, name)) for iteration, name in done]
    return [
        Phase(iteration=iteration, name=name, seconds=result["seconds"])
        for iteration, name, result in results
        if "seconds" in result
    ]


def identity(record: RunRecord) -> dict[str, Any]:
    """What decides what a run writes: its record, but for the time, and the code of the project."""
    return {**record.model_dump(mode="json", exclude={"created"}), "code": _hash_of_code()}


def _hash_of_code() -> str:
    root = Path(medcritical_ray.__file__).parents[1]
    files = sorted(path for package in _PACKAGES for path in (root / package).rglob("*.*") if path.suffix != ".pyc")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
