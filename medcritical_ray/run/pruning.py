"""Which policies of a run give up their weights, so that a run of many iterations does not fill the disk.

Manifest, rows and figures of a pruned policy stay: the chain of versions can still be followed. Nothing here decides
anything unless `run.keep_policies` is set.
"""

from collections.abc import Mapping
from pathlib import Path

from medcritical_ray.files import write_json
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.files import PRUNED
from medcritical_ray.run.policies import MANIFEST, PolicyStore
from medcritical_ray.run.state import adopted_version


def superfluous(parents: Mapping[int, int | None], *, keep: int, current: int, best: int) -> list[int]:
    """The versions, of those published, that nobody needs: not among the `keep` newest, not the initial one, which a
    corrector, a reference or an adapter may still be, not the current one or its parent, and not the best."""
    in_use = {min(parents), current, parents[current], best, *sorted(parents)[-keep:]}
    return sorted(set(parents) - in_use)


def prune_policies(run: RunDirectory, keep: int | None) -> None:
    """Between two iterations: removes the weights of superfluous policies, wherever the run has them, and those of
    trainings whose policy was rejected before it was published."""
    store = PolicyStore(run.policies)
    parents = {version: store.manifest(version).parent for version in store.published()}
    if keep is None or not parents:
        return
    for version in superfluous(parents, keep=keep, current=adopted_version(run), best=_best(run, parents)):
        if prune(store.path_of(version)) | prune(_trained(run, version)):
            run.append_event("policy pruned", version=version)
    number = STAGE_ONE
    while run.is_finished(number):
        if number not in parents:
            prune(_trained(run, number))
        number += 1


def prune(directory: Path) -> bool:
    """Removes the files of a policy's directory but its manifest, and says so there first. Whether there were any."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in (MANIFEST, PRUNED)]
    if files:
        write_json(directory / PRUNED, {"files": len(files)})
    for path in files:
        path.unlink()
    return bool(files)


def _trained(run: RunDirectory, number: int) -> Path:
    """Where an iteration's training left what was published; often the same files, by another name."""
    return run.iteration(number) / "trained"


def _best(run: RunDirectory, versions: Mapping[int, int | None]) -> int:
    """The version with the highest accuracy on dev, the newest of equals: test chooses nothing."""
    evaluated = [version for version in versions if run.done(version, "evaluate")]
    accuracy = {version: run.result(version, "evaluate")["dev"]["accuracy"]["value"] for version in evaluated}
    return max(evaluated, key=lambda version: (accuracy[version], version), default=min(versions))
