"""The plots of a report, as SVG that takes its text's colour from the page, so that it reads in light and dark."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from medcritical_ray.phases import phase_name

BLUE = "#3b82c4"
"""Of middle brightness: it stands out from a white ground and from a black one."""

_INK = "#010203"
"""Stands for the page's own colour of text until the SVG is written."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), _INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}
_LEAST_SCALE = 0.7
"""To which a narrow window shrinks a plot; further on it scrolls, so that its text can be read."""
MAX_POINTS = 400
"""Of a curve: more would make the page large, not clearer."""
_CURVES = {
    "loss": "loss",
    "margin": "margin (nats)",
    "chosen_logp": "log-probability of chosen (nats)",
    "ranking_accuracy": "share ranked right",
}


def plot_accuracy(points: Sequence[tuple[str, dict[str, Any], bool]]) -> str:
    """Accuracy with its 95 % interval, one point each: (name, proportion, whether the policy was adopted)."""
    with _style("accuracy"):
        figure = Figure(figsize=(1.0 + 0.8 * len(points), 2.6), layout="constrained")
        axes = figure.subplots()
        for place, (_, share, adopted) in enumerate(points):
            low, high = 100 * (share["value"] - share["low"]), 100 * (share["high"] - share["value"])
            fill = BLUE if adopted else "none"
            axes.errorbar(
                place, 100 * share["value"], [[low], [high]], fmt="o", color=BLUE, markerfacecolor=fill, capsize=3
            )
            label = f"{100 * share['value']:.1f}"
            axes.annotate(label, (place, 100 * share["value"]), (7, 4), textcoords="offset points")
        axes.set_xticks(range(len(points)), [name for name, *_ in points])
        axes.set_xlim(-0.5, len(points) - 0.2)
        axes.set_ylabel("accuracy on test (%)")
        axes.grid(axis="y", alpha=0.25)
        return _svg(figure)


def plot_training(name: str, steps: Sequence[Mapping[str, float]]) -> str:
    """The curves of one training, those of `_CURVES` that it has, over its steps."""
    shown = [key for key in _CURVES if any(step.get(key) is not None for step in steps)]
    with _style(name):
        figure = Figure(figsize=(2.6 * len(shown), 1.9), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            points = [(step["step"], step[key]) for step in steps if step.get(key) is not None]
            _draw_curve(axes, _CURVES[key], points)
            if key == "loss":
                _spread(axes, [value for _, value in points])
        return _svg(figure)


def _draw_curve(axes: Axes, title: str, points: Sequence[tuple[float, float]]) -> None:
    """Each step faintly, since batches differ, and their running mean."""
    drawn = thinned(points)
    steps, values = zip(*drawn, strict=True)
    axes.plot(steps, values, color=BLUE, linewidth=0.8, alpha=0.4, marker="" if len(drawn) > 1 else "o")
    axes.plot(steps, running_mean(values), color=BLUE, linewidth=1.6)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)


def _spread(axes: Axes, losses: Sequence[float]) -> None:
    """A log scale for losses of which the first would flatten the rest."""
    if min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


def running_mean(values: Sequence[float]) -> list[float]:
    """Of each value and those around it, a tenth of all."""
    reach = len(values) // 20
    return [fmean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points, each the mean of as many that follow one another."""
    size = -(-len(points) // MAX_POINTS) or 1
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(x for x, _ in run), fmean(y for _, y in run)) for run in runs]


def plot_seconds(iterations: Sequence[str], seconds: Mapping[str, Sequence[float]]) -> str:
    """Seconds per phase, a bar for each iteration; phases that never took a hundredth of the time are left out."""
    total = sum(map(sum, seconds.values()))
    shown = {phase: values for phase, values in seconds.items() if sum(values) > 0.01 * total}
    with _style("seconds"):
        figure = Figure(figsize=(5.2, 0.42 * len(iterations) + 1.3), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(iterations)
        for colour, (phase, values) in enumerate(shown.items()):
            axes.barh(range(len(iterations)), values, left=left, label=phase_name(phase), color=f"C{colour}")
            left = [start + value for start, value in zip(left, values, strict=True)]
        axes.set_yticks(range(len(iterations)), iterations)
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        figure.legend(loc="outside upper left", ncols=4, fontsize="small")
        return _svg(figure)


def _style(name: str) -> AbstractContextManager[None]:
    """Of the plot of that name; the names of what one SVG defines must not be those of another on the same page."""
    settings: Any = {**_STYLE, "svg.hashsalt": name}
    return mpl.rc_context(settings)


def _svg(figure: Figure) -> str:
    file = StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    least = f'<svg style="min-width: {_LEAST_SCALE * 72 * figure.get_figwidth():.0f}pt"'
    return text[text.index("<svg") :].replace("<svg", least, 1).replace(_INK, "currentColor")
