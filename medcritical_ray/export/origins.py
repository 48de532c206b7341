"""What is known of what a policy was made from: licences of the exams, and of the model below."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from medcritical_ray import __version__
from medcritical_ray.config import Config
from medcritical_ray.export.facts import Facts, Form

UNKNOWN = "unknown: check before publishing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """A source of questions. `licence` is what its makers state for their files; the questions may have other owners.

    `hub_name` is the data set on the Hugging Face Hub, where its makers publish it there.
    """

    title: str
    licence: str = UNKNOWN
    language: str | None = None
    hub_name: str | None = None


EXAMS = {
    "clinic": Exam(title="the clinic, made up by medcritical_ray", licence="Apache-2.0", language="en"),
    # Neither the makers' repository nor their paper states a licence; copies on the Hub do, which are not theirs.
    "cmexam": Exam(title="CMExam (arXiv 2306.03030)", language="zh"),
    # LICENSE in github.com/jind11/MedQA; the questions are in English and in both kinds of Chinese writing.
    "medqa": Exam(title="MedQA (arXiv 2009.13081)", licence="MIT"),
    # LICENSE.md in github.com/medmcqa/medmcqa, and the card on the Hub.
    "medmcqa": Exam(
        title="MedMCQA (arXiv 2203.14371)",
        licence="MIT on GitHub, Apache-2.0 on the Hub",
        language="en",
        hub_name="openlifescienceai/medmcqa",
    ),
    "medxpertqa": Exam(
        title="MedXpertQA (arXiv 2501.18362)", licence="MIT", language="en", hub_name="TsinghuaC3I/MedXpertQA"
    ),
    # The card on the Hub; the makers' repository on GitHub has no licence file.
    "cmb": Exam(
        title="CMB (arXiv 2308.08833)", licence="Apache-2.0", language="zh", hub_name="FreedomIntelligence/CMB"
    ),
    "pubmedqa": Exam(title="PubMedQA (arXiv 1909.06146)", licence="MIT", language="en", hub_name="qiaojin/PubMedQA"),
}
"""By the `source` of their questions."""


def exam_of(source: str) -> Exam:
    """What is known of a source; of a user's own, its name alone."""
    return EXAMS.get(source) or Exam(title=source)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """The model that exported weights build on: how a card names it, and the entries on its licence in its own card.

    `hub_name` is its name on the Hugging Face Hub, where the user has told it.
    """

    title: str
    hub_name: str | None = None
    licence: dict[str, Any] = field(default_factory=dict)

    @property
    def licence_name(self) -> str:
        return str(self.licence.get("license_name") or self.licence.get("license") or UNKNOWN)


def base_of(facts: Facts, form: Form, hub_name: str | None) -> Base:
    """What the exported weights build on: the run's student, or, below an adapter, perhaps a policy of the same run.

    `hub_name` is that model's name on the Hub, as the user tells it.
    """
    student = student_of(facts.config, hub_name)
    below = facts.policy.base_path
    if form == "adapter" and below and below.parent == facts.policy.path.parent:
        return replace(student, title=hub_name or f"{below.name} of the same run")
    return student


def student_of(config: Config, hub_name: str | None) -> Base:
    """The student that a run started from, under its name on the Hub if that is told."""
    student = config.student
    if student.fresh:
        return Base(title=hub_name or "none: a small Qwen2 with random weights", hub_name=hub_name)
    if not student.path:
        title = hub_name or f"the clinic's base student, which comes with medcritical_ray {__version__}"
        return Base(title=title, hub_name=hub_name, licence={"license": "apache-2.0"})
    return Base(
        title=hub_name or Path(student.path).name, hub_name=hub_name, licence=_licence_in_card(Path(student.path))
    )


def _licence_in_card(model_dir: Path) -> dict[str, Any]:
    """The entries on a licence in the card of a downloaded model; none if it has no card, or an unreadable one."""
    try:
        card = metadata_load(model_dir / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {key: card[key] for key in ("license", "license_name", "license_link") if isinstance(card.get(key), str)}
