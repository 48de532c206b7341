"""The main job as a user runs it: in processes of its own, from a directory of their own, killed, and resumed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_run import finish, start

from medcritical_ray.policies import PolicyStore
from medcritical_ray.run_directory import RunDirectory

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_run_that_was_killed_goes_on_and_does_nothing_twice(killed_run: tuple[RunDirectory, str]):
    run, output = killed_run
    phases = Counter((e["iteration"], e["phase"]) for e in run.events() if e["event"] == "phase done")
    assert set(phases.values()) == {1}
    assert PolicyStore(run.policies).versions() == [0, 1]
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["num_test"], len(summary["accuracy"]["iterations"])) == (20, 1)
    assert summary["versions"]["published"] == [0, 1]
    # The run is finished now: its table is shown again, and nothing starts it anew by accident.
    cwd: Path = run.path.parents[1]
    exit_code, table = finish(start(cwd, "--resume"))
    assert exit_code == 0
    assert "Accuracy on 20 test questions" in table
    assert output.endswith(table)
    exit_code, output = finish(start(cwd))
    assert exit_code == 2
    assert output.startswith(f"error: {run.path} holds a run already: resume it with `medcritical self-play")
