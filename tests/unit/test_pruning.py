"""Which policies give up their weights, and what becomes of a run that has let some go."""

import shutil
from pathlib import Path

import pytest
from fakes import SKILLS, SmallRun, small_config

from jobs.cli import main
from jobs.self_play import play_to_the_end
from medcritical_ray.config import Config
from medcritical_ray.engines.served import served_policy
from medcritical_ray.errors import UserError
from medcritical_ray.report import render_report
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.pruning import prune, superfluous
from medcritical_ray.run.verification import verify_run

CHAIN = {0: None, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5}
RISING = SKILLS | {f"dpo-{number:03d}": 0.5 + number / 20 for number in range(1, 7)}
SIX = {"num_iterations": 6, "keep_policies": 1}


@pytest.mark.parametrize(
    ("keep", "current", "best", "gone"),
    [
        (1, 6, 6, [1, 2, 3, 4]),  # the initial one, the parent of the current one and the newest stay
        (3, 6, 6, [1, 2, 3]),
        (1, 6, 2, [1, 3, 4]),
        (1, 3, 3, [1, 4, 5]),  # those after the current one were rejected; the newest may still be in the engines
        (7, 6, 6, []),
        (50, 6, 6, []),
    ],
)
def test_what_is_in_use_or_new_stays(keep: int, current: int, best: int, gone: list[int]):
    assert superfluous(CHAIN, keep=keep, current=current, best=best) == gone


def test_the_only_policy_stays():
    assert superfluous({0: None}, keep=1, current=0, best=0) == []


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of six iterations that keeps one policy beside those in use."""
    return played(tmp_path_factory.mktemp("pruned"), small_config(run=SIX))


def played(root: Path, config: Config, skills: dict[str, float] = RISING, **ends: int) -> RunDirectory:
    game = SmallRun(root, config, skills).open(**ends)
    with game.run:
        if ends:
            with pytest.raises(KeyboardInterrupt):
                play_to_the_end(game)
        else:
            play_to_the_end(game)
    return game.run


def weights_below(path: Path) -> set[str]:
    return {str(file.relative_to(path).parent) for file in path.rglob("*.safetensors")}


def kept_by(run: RunDirectory) -> set[int]:
    """What should be left, by the figures of the run."""
    accuracy = {n: run.result(n, "evaluate")["dev"]["accuracy"]["value"] for n in range(7)}
    best = max(accuracy, key=lambda version: (accuracy[version], version))
    current = run.metrics(6)["adopted_version"]
    return {0, 6, current, PolicyStore(run.policies).manifest(current).parent or 0, best}


def test_weights_go_and_records_stay(pruned: RunDirectory):
    store, kept = PolicyStore(pruned.policies), kept_by(pruned)
    assert set(store.versions()) == kept
    assert store.published() == [0, 1, 2, 3, 4, 5, 6]
    assert [store.manifest(version).version for version in range(7)] == [0, 1, 2, 3, 4, 5, 6]
    named = {f"policies/v{version:04d}" for version in kept} | {f"iterations/{version:03d}/trained" for version in kept}
    assert weights_below(pruned.path) == named | {"iterations/000/drafted", "iterations/000/draft/v0000"}
    events = [event["version"] for event in pruned.events() if event["event"] == "policy pruned"]
    assert sorted(events) == sorted(set(range(7)) - kept)


def test_a_run_that_was_pruned_is_whole(pruned: RunDirectory):
    found = verify_run(pruned)
    assert (found.faults, found.num_policies, found.num_pruned) == ([], 7, 7 - len(kept_by(pruned)))


def test_a_policy_that_the_run_goes_on_from_must_not_be_pruned(pruned: RunDirectory, tmp_path: Path):
    shutil.copytree(pruned.path, tmp_path / "run")
    current = pruned.metrics(6)["adopted_version"]
    path = tmp_path / "run" / "policies" / f"v{current:04d}"
    prune(path)
    assert [str(fault) for fault in verify_run(RunDirectory(tmp_path / "run")).faults] == [
        f"{path} is pruned, but the run goes on from it"
    ]


def test_whoever_asks_for_a_pruned_policy_is_told(pruned: RunDirectory, capsys: pytest.CaptureFixture[str]):
    version = min(set(range(7)) - kept_by(pruned))
    path = pruned.policies / f"v{version:04d}"
    message = f"{path} was pruned: run.keep_policies left no more of it than manifest.json"
    for ask in (PolicyStore(pruned.policies).get, lambda version: served_policy(version, path)):
        with pytest.raises(UserError) as caught:
            ask(version)
        assert str(caught.value) == message
    out = ["--out", str(pruned.path.parent / "model")]
    assert main(["export", "--run", str(pruned.path), "--policy", path.name, *out]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_report_and_list_tell_of_all_iterations(pruned: RunDirectory, capsys: pytest.CaptureFixture[str]):
    assert all(f"iteration {number}" in render_report(pruned) for number in range(1, 7))
    assert main(["runs", str(pruned.path)]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_run_that_is_killed_again_and_again_prunes_the_same(pruned: RunDirectory, tmp_path: Path):
    config = small_config(run=SIX)
    for _ in range(17):
        if not (tmp_path / "small" / "summary.json").exists():
            run = SmallRun(tmp_path, config, RISING)
            game = run.open(killed_at=5)
            with game.run:
                try:
                    play_to_the_end(game)
                except KeyboardInterrupt:
                    assert verify_run(game.run).faults == []
    again = RunDirectory(tmp_path / "small")
    assert again.summary_file.exists()
    assert weights_below(again.path) == weights_below(pruned.path)


def test_a_pruning_that_was_cut_off_is_finished_by_the_next(pruned: RunDirectory, tmp_path: Path):
    directory = tmp_path / "v0001"
    directory.mkdir()
    for name in ("manifest.json", "PRUNED", "model.safetensors"):
        (directory / name).write_text("{}")
    assert not PolicyStore(tmp_path).is_complete(1)
    assert prune(directory)
    assert sorted(entry.name for entry in directory.iterdir()) == ["PRUNED", "manifest.json"]
    assert not prune(directory)


def test_how_many_are_kept_may_change_when_a_run_is_resumed(tmp_path: Path):
    game = SmallRun(tmp_path, small_config(run={"num_iterations": 3}), RISING).open(killed_at=28)
    with game.run, pytest.raises(KeyboardInterrupt):
        play_to_the_end(game)
    assert PolicyStore(game.run.policies).versions() == [0, 1, 2]
    run = played(tmp_path, small_config(run={"num_iterations": 3, "keep_policies": 1}))
    assert 1 not in PolicyStore(run.policies).versions()
    assert verify_run(run).faults == []
