"""The table that `evaluate` prints."""

from typing import Any

import pytest

from jobs.parts.summaries import print_evaluation
from jobs.parts.terminal import wide_console
from medcritical_ray.questions import SharedStems
from medcritical_ray.statistics import Proportion


def figures_of(trained_on: SharedStems | None) -> dict[str, Any]:
    names = ("accuracy", "before_correction", "self_corrected", "agreement_rate")
    figures = {name: Proportion(1200, 2000).to_dict() for name in names}
    return {**figures, "mean_tokens": 3.0, "trained_on": trained_on, "directory": "model", "by_label": {}}


@pytest.mark.parametrize(
    ("trained_on", "told"), [(None, "unknown: no run known"), (SharedStems(num_stems=1234, examples=[]), "1,234")]
)
def test_the_rows_say_what_they_are(trained_on: SharedStems | None, told: str, capsys: pytest.CaptureFixture[str]):
    questions = {"file": "exam.csv", "loaded": 2000, "rows": 2000, "reasons": {}}
    result = {"policy": figures_of(trained_on), "against": [], "questions": questions}
    print_evaluation(wide_console(), result, [])
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    shown = {name.strip(): value.strip() for name, value in rows}
    share = "60.0 % [57.8, 62.1] (n=2,000)"
    assert shown == {
        "accuracy": share,
        "before self-correction": share,
        "after self-correction": share,
        "letter fits its text": share,
        "mean tokens": "3.0",
        "stems seen in training": told,
    }
