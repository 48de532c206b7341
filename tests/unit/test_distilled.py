"""Templates on disk: what was written is read back, whatever characters a model used."""

from pathlib import Path

import pytest

from medcritical_ray.distilled import Distilled, read_templates, write_distilled
from medcritical_ray.errors import UserError


def distilled(question_id: str, template: str | None, reason: str | None = None) -> Distilled:
    return Distilled(question_id=question_id, template=template, reason=reason, num_asked=1)


@pytest.mark.parametrize("blank", ["\u2028", "\u0085", "\x0c", "\r", "\n"])
def test_templates_are_read_back_whatever_ends_lines_in_them(tmp_path: Path, blank: str):
    template = f"Step 1: rest{blank}helps.\nAnswer: rest (A)"
    write_distilled(tmp_path, [distilled("one", template), distilled("two", None, "budget")], {})
    assert read_templates(tmp_path) == {"one": template}


def test_a_directory_in_which_no_template_counts_is_refused(tmp_path: Path):
    write_distilled(tmp_path, [distilled("two", None, "budget")], {})
    with pytest.raises(UserError):
        read_templates(tmp_path)
