"""What a person sees of a run while it goes on, and at its end."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jobs.parts.summaries import print_next
from jobs.parts.terminal import PlainConsole, TerminalProgress
from medcritical_ray.engines.fleet import ENGINE_DIED, ENGINES_START
from medcritical_ray.run.directory import RunDirectory


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def written() -> StringIO:
    return StringIO()


@pytest.fixture
def console(written: StringIO) -> PlainConsole:
    """One that writes to a pipe."""
    console = PlainConsole()
    console.file, console.width = written, 110
    return console


def test_where_no_bar_is_seen_a_phase_says_that_it_begins_and_now_and_then_how_far_it_is(
    console: PlainConsole, written: StringIO
):
    clock = Clock()
    with TerminalProgress(console, clock) as progress:
        progress.start_phase(1, "train")
        for step, now in enumerate([10, 29, 31, 40, 62], 1):
            clock.now = now
            progress.step(1, "train", {"step": step, "num_steps": 5})
        progress.finish_phase(1, "train", 62.0, {})
    assert [line.strip() for line in written.getvalue().splitlines() if line.strip()] == [
        "iteration 1: train",
        "train 3 of 5",
        "train 5 of 5",
        "done iteration 1: train            62.0 s",
    ]


def test_what_engines_do_is_told_and_noted_and_other_events_are_noted_alone(console: PlainConsole, written: StringIO):
    events: list[tuple[str, dict[str, Any]]] = []
    with TerminalProgress(console) as progress:
        note = progress.noted(lambda event, **fields: events.append((event, fields)))
        note(ENGINES_START, role="generator", num_engines=2)
        note(ENGINES_START, role="corrector", num_engines=1)
        note(ENGINE_DIED, engine="demo/generator-0", version=1, deaths=1, cause="no answer")
        note("report not written", cause="no space")
    assert written.getvalue().split("\n")[:3] == [
        "starting 2 engines (generator)",
        "starting 1 engine (corrector)",
        "demo/generator-0 died: no answer",
    ]
    assert "no space" not in written.getvalue()
    assert [event for event, _ in events] == [ENGINES_START, ENGINES_START, ENGINE_DIED, "report not written"]


def test_a_run_ends_with_its_report_and_what_to_do_next(
    console: PlainConsole, written: StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    print_next(console, RunDirectory(tmp_path / "runs" / "demo"))
    assert written.getvalue() == (
        "Report: runs/demo/report.html\n"
        "Next: `medcritical serve --run runs/demo`, `medcritical export --run runs/demo --out demo-model`\n"
    )
