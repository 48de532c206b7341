"""The chain of a run's policies: every version, its parent and what it was trained from."""

from collections.abc import Mapping
from typing import Any

from medcritical_ray.config import Config
from medcritical_ray.files import read_json, sha256_of
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.files import METRICS, PRUNED, files_below
from medcritical_ray.run.policies import COMPLETE, MANIFEST, Manifest, Policy, PolicyStore
from medcritical_ray.run.verification.inspection import Inspection
from medcritical_ray.run.verification.markers import iterations_of

ADOPTED = "adopted_version"


def inspect_chain(inspection: Inspection, config: Config | None) -> None:
    """Blames policies that are missing, damaged, published by no iteration, or not trained from what played."""
    run, store = inspection.run, PolicyStore(inspection.run.policies)
    numbers, published = iterations_of(run), store.published()
    inspection.found.num_policies = len(published)
    inspection.found.num_pruned = sum(map(store.is_pruned, published))
    playing: int | None = None
    for number in numbers:
        if run.done(number, "publish"):
            _inspect_policy(inspection, store, number, playing)
        elif number in published and (run.is_finished(number) or number < max(numbers)):
            inspection.blame(store.path_of(number), "was published by no iteration")
        if config and run.done(number, "train") and number != STAGE_ONE:
            _inspect_training(inspection, number, playing, config)
        playing = _adopted(inspection, number, playing)
    for number in set(published) - set(numbers):
        inspection.blame(store.path_of(number), "was published by no iteration")
    if playing is not None and store.is_pruned(playing):
        inspection.blame(store.path_of(playing), "is pruned, but the run goes on from it")


def playing_version(run: RunDirectory, iteration: int) -> int | None:
    """The version that plays an iteration. Raises UserError if the metrics of the one before cannot be read."""
    return run.metrics(iteration - 1).get(ADOPTED) if iteration and run.is_finished(iteration - 1) else None


def _adopted(inspection: Inspection, number: int, playing: int | None) -> int | None:
    """The version that an iteration ended with; if it has not ended, the one that plays it."""
    run, metrics_file = inspection.run, inspection.run.iteration(number) / METRICS
    version = playing
    if not run.is_finished(number) or inspection.is_blamed(metrics_file):
        return version
    with inspection.blaming(metrics_file):
        metrics = run.metrics(number)
        version = metrics.get(ADOPTED)
        if version not in (number, playing):
            inspection.blame(metrics_file, f"has version {version} adopted, which neither played nor was trained")
        elif metrics.get("rejected") and version == number:
            inspection.blame(metrics_file, f"has version {version} adopted and rejected")
    return version if isinstance(version, int) else playing


def _inspect_policy(inspection: Inspection, store: PolicyStore, version: int, playing: int | None) -> None:
    path = store.path_of(version)
    if not path.is_dir():
        inspection.blame(path, "is missing")
        return
    if not (path / COMPLETE).exists() and not store.is_pruned(version):
        inspection.blame(path / COMPLETE, "is missing: the policy does not count without it")
    elif not store.is_pruned(version):
        with inspection.blaming(path / COMPLETE):
            if read_json(path / COMPLETE) != {"version": version}:
                inspection.blame(path / COMPLETE, "is of another version")
    with inspection.blaming(path / MANIFEST):
        manifest = store.manifest(version)
        _inspect_manifest(inspection, manifest, store, version, playing)
        for name, recorded in manifest.files.items():
            inspection.compare(path / name, recorded)
        for file in files_below(path):
            known = {*manifest.files, MANIFEST, COMPLETE, PRUNED}
            if file.relative_to(path).as_posix() not in known and not store.is_pruned(version):
                inspection.blame(file, "was not published: the manifest does not list it")


def _inspect_manifest(
    inspection: Inspection, manifest: Manifest, store: PolicyStore, version: int, playing: int | None
) -> None:
    path = store.path_of(version)
    file = path / MANIFEST
    recorded = _result(inspection, version, "publish").get("manifest")
    if recorded and sha256_of(file) != recorded:
        inspection.blame(file, "is damaged: its SHA-256 is not that which was recorded")
    if manifest.version != version:
        inspection.blame(file, f"is of version {manifest.version}")
    if manifest.parent != playing:
        inspection.blame(file, f"has version {manifest.parent} as its parent, but {playing} played")
    if manifest.parent is not None and not store.path_of(manifest.parent).is_dir():
        inspection.blame(store.path_of(manifest.parent), f"is missing: it is the parent of version {version}")
    base = Policy(version=version, path=path, manifest=manifest).base_path
    if base is not None and not base.is_dir():
        inspection.blame(base, f"is missing: version {version} is an adapter of it")
    elif base is not None and (base / PRUNED).exists() and not store.is_pruned(version):
        inspection.blame(base, f"is pruned, but version {version} is an adapter of it")


def _inspect_training(inspection: Inspection, number: int, playing: int | None, config: Config) -> None:
    trained = _result(inspection, number, "train")
    reference = playing if config.dpo.reference == "previous" else 0
    for what, recorded, expected in (
        ("the policy", trained.get("policy"), playing),
        ("the reference", trained.get("reference"), reference),
    ):
        if recorded is not None and recorded != expected:
            marker = inspection.run.phase_file(number, "train")
            inspection.blame(marker, f"has version {recorded} as {what} of the training, not {expected}")


def _result(inspection: Inspection, number: int, phase: str) -> Mapping[str, Any]:
    """The result of a phase that is done; nothing if it cannot be read, which is told."""
    results: list[Mapping[str, Any]] = [{}]
    with inspection.blaming(inspection.run.phase_file(number, phase)):
        results.append(inspection.run.result(number, phase))
    return results[-1]
