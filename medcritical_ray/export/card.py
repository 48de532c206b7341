"""The model card of an exported policy: README.md with the front matter that the Hugging Face Hub reads.

Whatever comes from a run or from its user is escaped: no name can break the YAML or the Markdown around it.
"""

import re
from collections.abc import Iterator
from typing import Any

import tomli_w

from medcritical_ray.config import Config
from medcritical_ray.export.facts import Facts, Form
from medcritical_ray.export.front_matter import front_matter
from medcritical_ray.export.origins import UNKNOWN, Base, exam_of
from medcritical_ray.export.usage import how_to_ask
from medcritical_ray.run.iterations import Iteration, latest_adopted
from medcritical_ray.statistics import percent, with_count

NO_ADVICE = "This model gives no medical advice, and nothing that it writes is medical advice."

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~&$])")
_SETTINGS = ("sft", "generate", "correct", "pairs", "dpo")
_METHOD = """\
MedCritical ([arXiv 2509.23368](https://arxiv.org/abs/2509.23368)), as the package medcritical_ray carries it out.
Stage 1: a teacher's two-level reasoning templates and corrections of mistakes, by supervised fine-tuning. Stage 2,
repeated: the policy attempts questions, the exam's key grades the attempts, {repaired}and {trained}. A new version is
adopted unless it is worse on questions set aside for that (dev)."""
_READING = """\
Accuracy is the share of the test questions that the policy answers rightly, decoding greedily; what is cut off or
cannot be read counts as wrong. Repaired: repairs of wrong answers that reach the key, told that the answer is
wrong; by guessing: what a blind guess among the other options would make of it. Broken: right answers that are
wrong after a check that was told nothing. All intervals are 95 % Wilson intervals."""
_LIMITS = """\
For research on how small models learn from their own corrected mistakes, and on exam questions with lettered options.
It is not made for patients, for clinicians at work, or for any decision about a person.

- It was measured on questions of the sources above alone; an exam's key says nothing of how it would do anywhere else.
- Right letters may come from wrong reasons: most steps are graded by nobody, and preference pairs teach what reaches
  the key.
- It answers every question, with the same assurance whether it is right or wrong; it was not taught to refuse any.
- What exams leave out, get wrong or see from one country's practice, it has from them."""
_CLINIC = "\n- The clinic is a laboratory: its medicine is much simplified, and not to be learnt from."


def model_card(facts: Facts, form: Form, base: Base, *, has_chat_template: bool) -> str:
    """The text of README.md."""
    sections = {
        "How to ask it": how_to_ask(facts, form, has_chat_template=has_chat_template),
        "Results": _results(facts),
        "Data and licences": _data(facts, base),
        "Training": f"{_method(facts.config)}\n\n```toml\n{_settings(facts.config)}```",
        "Provenance": _provenance(facts),
        "Intended use and limits": f"{_limits(facts)}\n\n**{NO_ADVICE}**",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    top = f"---\n{front_matter(facts, form, base)}\n---\n\n# {plain(facts.name)}"
    return f"{top}\n\n{_opening(facts, form, base)}\n\n{body}\n"


def _method(config: Config) -> str:
    """The method as this run's config has it."""
    who = {"teacher": "the teacher repairs"}.get(config.correct.policy, "a policy of the run repairs")
    repaired = f"{who} the wrong ones without being told what is right, "
    dpo = "DPO ([arXiv 2305.18290](https://arxiv.org/abs/2305.18290)) trains it to prefer those that reach the key"
    return _METHOD.format(
        repaired=repaired if config.pairs.take_corrections else "",
        trained=dpo if config.dpo.preference_weight else "it is fine-tuned on those that reach the key",
    )


def open_points(facts: Facts, form: Form, base: Base) -> list[str]:
    """What is left to do before the directory is published."""
    unknown = [exam_of(source).title for source in facts.sources if exam_of(source).licence == UNKNOWN]
    points = [f"licence of the questions of {title}: unknown" for title in unknown]
    if base.licence_name == UNKNOWN:
        points.append(f"licence of the model below ({base.title}): unknown")
    if facts.config.teacher.kind == "distilled" or facts.config.teacher.corrections == "endpoint":
        points.append("terms of the model that taught: check what they allow")
    if form == "adapter" and not base.hub_name:
        points.append("the adapter names a directory of this machine as its base: name the published model with --base")
    return points


def plain(text: str) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _opening(facts: Facts, form: Form, base: Base) -> str:
    title = plain(base.title)
    what = {
        "full": f"All weights of a model trained from {title}",
        "merged": f"A LoRA adapter trained on {title}, merged into it",
        "adapter": f"A LoRA adapter for {title}",
    }[form]
    lines = [
        f"**{NO_ADVICE}**",
        f"{what}: version {facts.policy.version} of the run {plain(facts.run)}, in which a small language model learns "
        "to answer medical exam questions from its own corrected mistakes.",
        _standing(facts),
    ]
    if not facts.is_finished:
        done, all_of_them = facts.num_iterations_done, facts.config.run.num_iterations
        lines.append(f"**The run is not finished:** {done} of its {all_of_them} iterations were done at this export.")
    return "\n\n".join(lines)


def _standing(facts: Facts) -> str:
    """Where the version stands in its run."""
    iteration, latest = facts.iteration, latest_adopted(facts.iterations)
    if iteration.is_adopted is None:
        return "The run has not decided whether it goes on with this version."
    if not iteration.is_adopted:
        why = f": {iteration.why_rejected}" if iteration.why_rejected else ""
        return f"The run did not adopt this version{why}."
    if iteration is not latest and latest:
        return f"The run adopted this version, and others after it; its latest is version {latest.number}."
    return f"It is the version that the run {'ended with' if facts.is_finished else 'has adopted last'}."


def _results(facts: Facts) -> str:
    rows = [["policy", "accuracy on test", "repaired", "by guessing", "broken"]]
    rows += [["base", *_figures(facts.base)]]
    rows += [[_policy_name(iteration, facts), *_figures(iteration.test)] for iteration in facts.iterations]
    text = f"{_table(rows)}\n\n{_READING} {_use_of_test(facts.questions)}"
    if facts.config.correct.policy != "latest":
        text += " The corrector was version 0 throughout."
    paired = facts.comparison
    if paired:
        text += (
            f"\n\nThis version against the student of stage 1, on the same {paired.num_questions:,} questions: "
            f"{100 * paired.gain:+.1f} points; {paired.only_b:,} questions only this version has right, "
            f"{paired.only_a:,} only the other (McNemar's exact test, two-sided: p = {paired.p_value:.2g})."
        )
    return text


def _use_of_test(questions: dict[str, Any]) -> str:
    shared = {
        pair: num for pair, num in questions.get("shared_stems", {}).items() if pair.endswith(" and test") and num
    }
    if not shared:
        return "The test questions were used for nothing else."
    counts = ", ".join(f"{plain(pair)} share {num:,} stems" for pair, num in shared.items())
    return f"**The run used test questions for other things, too: {counts}.**"


def _policy_name(iteration: Iteration, facts: Facts) -> str:
    adopted = ", not adopted" if iteration.is_adopted is False else ""
    name = f"**{iteration.name}: this version**" if iteration is facts.iteration else iteration.name
    return f"{name}{adopted}"


def _figures(test: dict[str, Any] | None) -> list[str]:
    if not test:
        return ["not evaluated", "-", "-", "-"]
    cells = [with_count(test["accuracy"])]
    if "wrong_to_right" not in test:
        return [*cells, "-", "-", "-"]
    guessing = percent(test["wrong_to_right_by_guessing"])
    return [*cells, with_count(test["wrong_to_right"]), guessing, with_count(test["right_to_wrong"])]


def _data(facts: Facts, base: Base) -> str:
    rows = [["questions of", "train", "dev", "test", "licence, as its makers state it"]]
    for source, counts in facts.sources.items():
        exam = exam_of(source)
        rows.append([plain(exam.title), *(f"{counts[split]:,}" for split in ("train", "dev", "test")), exam.licence])
    lines = [
        f"- Model below: {plain(base.title)}; licence: {plain(base.licence_name)}.",
        f"- Teacher of stage 1: {_teacher(facts.config)}.",
        *(f"- {line}" for line in _contamination(facts.questions)),
    ]
    caution = "Exam questions may have owners other than those who made files of them."
    return f"{_table(rows)}\n\n{caution}\n\n" + "\n".join(lines)


def _teacher(config: Config) -> str:
    rules = {"clinic": "the clinic's rules", "explanations": "the explanations that come with the questions"}
    teacher = config.teacher
    writer = plain(teacher.endpoint.model) if teacher.endpoint else "a large model that the run does not name"
    terms = f"whose terms may limit what is trained on its texts: {UNKNOWN}"
    if teacher.kind not in rules:
        return f"templates written by {writer}, {terms}"
    return rules[teacher.kind] + (f"; corrections by {writer}, {terms}" if teacher.corrections == "endpoint" else "")


def _contamination(questions: dict[str, Any]) -> Iterator[str]:
    read = questions.get("read")
    if read and read["rows"]:
        yield f"Rows read: {read['rows']:,}; set aside as unusable: {read['quarantined']:,}."
    pairs = {
        "shared_stems": "Normalised stems that two splits have in common",
        "shared_stems_of_files": "Normalised stems that two files had in common before the splits were drawn",
    }
    for key, what in pairs.items():
        counts = ", ".join(f"{plain(pair)} {num:,}" for pair, num in questions.get(key, {}).items())
        if counts:
            yield f"{what}: {counts}."
    yield "Whether the model below had met any of the questions before is not known to the run."


def _settings(config: Config) -> str:
    values = config.model_dump(mode="json", include=set(_SETTINGS), exclude_none=True)
    for part in ("sft", "dpo"):
        if values[part]["method"] == "full":
            del values[part]["lora"]
    return tomli_w.dumps({part: values[part] for part in _SETTINGS})


def _provenance(facts: Facts) -> str:
    manifest, record = facts.policy.manifest, facts.record
    values = {
        "run": f"{facts.run}, started {record.created:%Y-%m-%d %H:%M} UTC",
        "version": f"{manifest.version}, published {manifest.created:%Y-%m-%d %H:%M} UTC",
        "trained from": "the model below" if manifest.parent is None else f"version {manifest.parent}",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in record.seeds.items()),
        "medcritical_ray": record.code_version,
        "packages": ", ".join(f"{name} {version}" for name, version in record.packages.items()),
        **{f"SHA-256 of {name}": digest for name, digest in record.fingerprints.items()},
        **{f"SHA-256 of {name} in the run": digest for name, digest in manifest.files.items() if _is_weights(name)},
    }
    return _table([["", ""], *([plain(name), plain(value)] for name, value in values.items())])


def _limits(facts: Facts) -> str:
    return _LIMITS + (_CLINIC if "clinic" in facts.sources else "")


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _table(rows: list[list[str]]) -> str:
    """A Markdown table whose first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
