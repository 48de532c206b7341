"""The terminal that a person looks at, and the live progress of what goes on."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from medcritical_ray.engines.fleet import ENGINE_DIED, ENGINE_RESTARTED, ENGINE_RETIRED, ENGINES_START, Note
from medcritical_ray.phases import iteration_name, phase_name
from medcritical_ray.printable import printable
from medcritical_ray.statistics import percent

_SHOWN = ("demonstrations", "num_trajectories", "solve_right", "repair_right", "check_right", "pairs", "version")
"""The figures of a phase that its line shows, where it has them."""


_EVENTS = {
    ENGINES_START: "starting {engines} ({role})",
    ENGINE_DIED: "{engine} died: {cause}",
    ENGINE_RESTARTED: "{engine} serves again",
    ENGINE_RETIRED: "{engine} is retired",
}
"""What a person is told of engines, by event."""

SIGN_OF_LIFE_S = 30.0
"""How often a phase says how far it is where nobody sees its bar."""

MIN_WIDTH = 110
"""Columns that the tables need; on a narrower terminal their lines wrap, their words do not."""


class PlainConsole(Console):
    """Shows every text as it stands: what looks like markup is none, and what is no character to see is escaped."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:  # it hands all of them on
        return super().render_str(printable(text), **how)


def wide_console() -> Console:
    console = PlainConsole()
    console.width = max(console.width, MIN_WIDTH)
    return console


class TerminalProgress:
    """A bar for the blocks of the phase under way, and a line for every phase that is done. Where no terminal can draw
    the bar, a line says that the phase begins, and others now and then how far it is."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_sign = 0.0
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def start_phase(self, iteration: int, phase: str) -> None:
        self._task = self._bars.add_task(self._title(iteration, phase), total=None)
        self._sign(self._title(iteration, phase))

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        done = f" {self._title(iteration, phase)} {seconds:6.1f} s  {_news(result)}"
        self._bars.console.print(Text("done", style="green"), done, sep="", soft_wrap=True)

    def advance(self, label: str, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
            self._sign_now_and_then(f"{label} {done:,} of {total:,}")

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        self.advance("train", int(metrics["step"]), int(metrics["num_steps"]))

    def noted(self, note: Note) -> Note:
        """Tells `note` what it is told, and a person what engines do."""

        def both(event: str, **fields: Any) -> None:
            note(event, **fields)
            if event in _EVENTS:
                num = fields.get("num_engines", 0)
                engines = f"{num:,} {'engine' if num == 1 else 'engines'}"
                self._bars.console.print(_EVENTS[event].format(**fields, engines=engines), soft_wrap=True)

        return both

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _sign(self, text: str) -> None:
        self._last_sign = self._clock()
        if not self._bars.console.is_terminal:
            self._bars.console.print(f"     {text}".rstrip(), soft_wrap=True)

    def _sign_now_and_then(self, text: str) -> None:
        if self._clock() - self._last_sign >= SIGN_OF_LIFE_S:
            self._sign(f"  {text}")

    def _title(self, iteration: int, phase: str) -> str:
        return f"{iteration_name(iteration):11}: {phase_name(phase):14}"


class EvaluationProgress(TerminalProgress):
    """The same for an evaluation, whose phases are the policies and whose bars are the kinds of texts written."""

    def advance(self, label: str, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, description=label, completed=done, total=total)
            self._sign_now_and_then(f"{label} {done:,} of {total:,}")

    def _title(self, iteration: int, phase: str) -> str:
        return printable(phase)


def _news(result: dict[str, Any]) -> str:
    """The figures of a phase that a person waits for."""
    if "test" in result:
        return f"test accuracy {percent(result['test']['accuracy']['value'])}"
    if "last_step" in result:
        examples = result.get("num_pairs", result.get("num_demonstrations"))
        first, last = (result[step]["loss"] for step in ("first_step", "last_step"))
        return f"{_plain(examples)} examples, loss of the first batch {first:.3f}, of the last {last:.3f}"
    shown = {key: result[key] for key in _SHOWN if key in result}
    return ", ".join(f"{phase_name(key)} {_plain(value)}" for key, value in shown.items())


def _plain(value: Any) -> str:
    """A number, or counts by name in brackets."""
    if not isinstance(value, dict):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return "(" + ", ".join(f"{name} {_plain(number)}" for name, number in value.items()) + ")"
