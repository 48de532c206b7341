"""What the markers of an iteration record: that phases are done, and the hashes of what they left."""

from medcritical_ray.files import read_json
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.files import Hashes, markers_in
from medcritical_ray.run.verification.inspection import Inspection


def iterations_of(run: RunDirectory) -> list[int]:
    """The numbers of the iterations that have begun, stage 1 (0) among them."""
    names = (path.name for path in (run.path / "iterations").glob("*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def inspect_iteration(inspection: Inspection, iteration: int) -> None:
    """Blames markers that are missing or not what they were, and files that are not what their phase left."""
    run = inspection.run
    if iteration and not run.is_finished(iteration - 1):
        inspection.blame(run.done_file(iteration - 1), f"is missing: iteration {iteration} has begun")
    if run.is_finished(iteration):
        _inspect_done(inspection, iteration)
    left: Hashes = {}
    for phase in run.phases_done(iteration):
        with inspection.blaming(run.phase_file(iteration, phase)):
            left |= run.left(iteration, phase)
    for name, recorded in left.items():
        inspection.compare(run.path / name, recorded)
    if run.phases_done(iteration) and not left:
        inspection.found.notes.append(f"{run.iteration(iteration)} has no hashes: it is of an earlier version")
    _inspect_strangers(inspection, left)


def _inspect_done(inspection: Inspection, iteration: int) -> None:
    run, done = inspection.run, inspection.run.done_file(iteration)
    marked: Hashes = {}
    with inspection.blaming(done):
        marked = run.markers(iteration)
        if read_json(done).get("iteration") != iteration:
            inspection.blame(done, "is of another iteration")
    for name, recorded in marked.items():
        inspection.compare(run.path / name, recorded)
    for marker in markers_in(run.iteration(iteration)) if marked else ():
        if marker.relative_to(run.path).as_posix() not in marked:
            inspection.blame(marker, "was not there when the iteration was done")


def _inspect_strangers(inspection: Inspection, left: Hashes) -> None:
    """A part or weights beside those of a phase would be read with them."""
    run = inspection.run.path
    for directory in sorted({(run / name).parent for name in left}):
        for file in sorted([*directory.glob("*.parquet"), *directory.glob("*.safetensors")]):
            if file.relative_to(run).as_posix() not in left:
                inspection.blame(file, "was left by no phase that is done")
