"""What the Hugging Face Hub reads of a model card: licence, languages, data sets, base and results."""

from collections.abc import Iterable

from huggingface_hub import EvalResult, ModelCardData

from medcritical_ray.export.facts import Facts, Form
from medcritical_ray.export.origins import Base, exam_of
from medcritical_ray.statistics import with_count


def front_matter(facts: Facts, form: Form, base: Base) -> str:
    """YAML without its fences."""
    exams = [exam_of(source) for source in facts.sources]
    relation = "adapter" if form == "adapter" else "finetune"
    data = ModelCardData(
        **(base.licence or {"license": "unknown"}),
        language=_unique(exam.language for exam in exams),
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["medical", "multiple-choice", "self-play", "dpo", "medcritical"],
        datasets=_unique(exam.hub_name for exam in exams),
        base_model=base.hub_name,
        base_model_relation=relation if base.hub_name else None,
        model_name=facts.name,
        eval_results=_eval_results(facts),
    )
    return str(data.to_yaml())


def _unique(values: Iterable[str | None]) -> list[str] | None:
    return list(dict.fromkeys(value for value in values if value)) or None


def _eval_results(facts: Facts) -> list[EvalResult] | None:
    if not facts.iteration.test:
        return None
    accuracy = facts.iteration.test["accuracy"]
    exams = {source: exam_of(source) for source, counts in facts.sources.items() if counts.get("test")}
    names = [exam.hub_name or source for source, exam in exams.items()]
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=" and ".join(names) or "unknown",
            dataset_name=" and ".join(exam.title for exam in exams.values()) + ", questions that the run set aside",
            metric_type="accuracy",
            metric_name=f"accuracy (greedy), {with_count(accuracy)}",
            metric_value=round(100 * accuracy["value"], 1),
        )
    ]
