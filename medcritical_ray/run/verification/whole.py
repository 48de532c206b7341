"""Looks at a whole run: first what says that something is done, then all that it speaks of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.state import run_config
from medcritical_ray.run.verification.chain import inspect_chain
from medcritical_ray.run.verification.inspection import Inspection, Verification
from medcritical_ray.run.verification.markers import inspect_iteration, iterations_of
from medcritical_ray.run.verification.rows import inspect_rows


def verify_run(run: RunDirectory) -> Verification:
    """What is wrong with a run, if anything. Reads every file that a phase or a policy's manifest has recorded."""
    inspection = Inspection(run)
    events = list(_events(inspection))
    config = _config(inspection)
    _inspect_events(inspection, events)
    for iteration in iterations_of(run):
        inspect_iteration(inspection, iteration)
    inspect_chain(inspection, config)
    if config:
        inspect_rows(inspection, config)
    return inspection.found


def _config(inspection: Inspection) -> Config | None:
    """None if it cannot be read, or is of another version: then rows are not compared with the questions."""
    run = inspection.run
    if not run.exists():
        inspection.blame(run.record_file, "is missing")
        return None
    with inspection.blaming(run.record_file):
        run.record()
        try:
            return run_config(run, "rows are not compared with the questions")
        except UserError as error:
            inspection.found.notes.append(str(error))
    return None


def _events(inspection: Inspection) -> Iterator[dict[str, Any]]:
    """The events that can be read. A line that a crash tore has no end, and is nobody's fault; others are blamed."""
    file = inspection.run.events_file
    with inspection.blaming(file):
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict):
                yield event
            elif line.rstrip().endswith(b"}"):
                inspection.blame(file, f"line {number} is no event")


def _inspect_events(inspection: Inspection, events: list[dict[str, Any]]) -> None:
    """Every file that an event speaks of must be there, and be what it was when the last one spoke of it."""
    hashes = {file: event.get("sha256") for event in events if (file := _spoken_of(inspection.run, event))}
    for file, recorded in hashes.items():
        if isinstance(recorded, str):
            inspection.compare(file, recorded)
        elif not file.exists():
            inspection.blame(file, "is missing")


def _spoken_of(run: RunDirectory, event: dict[str, Any]) -> Path | None:
    """The file that says what the event says, too."""
    match event:
        case {"event": "run created"}:
            return run.record_file
        case {"event": "phase done", "iteration": int(iteration), "phase": str(phase)}:
            return run.phase_file(iteration, phase)
        case {"event": "iteration done", "iteration": int(iteration)}:
            return run.done_file(iteration)
        case {"event": "run finished"}:
            return run.summary_file
    return None
