"""What an export says of a policy and its run, and what it refuses, told without a model."""

import argparse
import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import SmallRun, small_config
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from jobs.cli import main
from jobs.parts.options import policy_directory, run_and_version
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.export.card import NO_ADVICE, model_card, open_points, plain
from medcritical_ray.export.facts import Facts, chosen_policy, facts_of
from medcritical_ray.export.origins import UNKNOWN, Base, base_of
from medcritical_ray.files import atomic_directory, read_json, write_json
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.iterations import Decision, Iteration, Rejected
from medcritical_ray.self_play import self_play
from medcritical_ray.stage_one import stage_one
from medcritical_ray.summary import summarise

QWEN = Base(title="Qwen/Qwen2.5-7B", hub_name="Qwen/Qwen2.5-7B", licence={"license": "apache-2.0"})


def played(root: Path, killed_at: int | None = None) -> RunDirectory:
    """A small run of two iterations on the clinic; `killed_at` is the number of the phase that did not come to work."""
    run = SmallRun(root, small_config())
    with suppress(KeyboardInterrupt), (game := run.open(killed_at=killed_at)).run:
        policy = self_play(game, stage_one(game))
        write_json(game.run.summary_file, summarise(game, policy.version))
    return RunDirectory(run.path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return played(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def facts(finished: RunDirectory) -> Facts:
    return facts_of(finished, chosen_policy(finished, None))


def changed(facts: Facts, **parts: dict[str, Any]) -> Facts:
    """The facts with some keys of some parts of the config changed."""
    config = facts.config.model_dump()
    return dataclasses.replace(
        facts, config=Config.model_validate(config | {name: config[name] | part for name, part in parts.items()})
    )


def card_of(facts: Facts, base: Base = QWEN) -> tuple[dict[str, Any], str]:
    """Front matter, as the Hub finds and reads it, and text of the card of exported full weights."""
    card = model_card(facts, "full", base, has_chat_template=True)
    found = REGEX_YAML_BLOCK.search(card)
    assert found
    return yaml.safe_load(found[2]), card[found.end() :]


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the first table of a section, without its header."""
    lines = text.partition(f"\n## {title}\n")[2].splitlines()
    table = [line for line in lines[: lines.index("", 2)] if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table[2:]]


def test_the_policy_is_the_one_adopted_last_unless_a_version_is_named(finished: RunDirectory, tmp_path: Path):
    assert chosen_policy(finished, None).version == 2
    assert chosen_policy(finished, 1).version == 1
    other = RunDirectory(shutil.copytree(finished.path, tmp_path / "other"))
    write_json(other.iteration(2) / "metrics.json", finished.metrics(2) | {"adopted_version": 1})
    assert chosen_policy(other, None).version == 1


def test_a_version_that_is_not_there_is_refused_and_those_that_are_are_named(finished: RunDirectory):
    with pytest.raises(UserError, match=r"v0007 is no complete policy; complete versions in .*: v0000, v0001, v0002"):
        chosen_policy(finished, 7)


def test_a_policy_with_a_damaged_file_is_refused(finished: RunDirectory, tmp_path: Path):
    run = RunDirectory(shutil.copytree(finished.path, tmp_path / "damaged"))
    (run.policies / "v0002" / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        chosen_policy(run, None)


def test_the_figures_and_the_paired_test_are_those_of_the_run_s_summary(finished: RunDirectory, facts: Facts):
    summary = read_json(finished.summary_file)
    tests = [summary["test"]["base"], summary["test"]["sft"], *summary["test"]["iterations"]]
    assert [facts.base, *(each.test for each in facts.iterations)] == tests
    assert facts.comparison is not None
    assert facts.comparison.p_value == summary["p_value_final_vs_sft"]
    assert facts.comparison.gain == pytest.approx(summary["accuracy"]["final"] - summary["accuracy"]["sft"])


def test_the_card_shows_every_policy_with_counts_and_intervals(facts: Facts):
    rows = rows_of(card_of(facts)[1], "Results")
    assert [row[0] for row in rows] == ["base", "stage 1", "iteration 1", "**iteration 2: this version**"]
    test = facts.iterations[2].test
    assert test is not None
    accuracy, repaired = test["accuracy"], test["wrong_to_right"]
    assert rows[3][1].startswith(f"{100 * accuracy['value']:.1f} % [{100 * accuracy['low']:.1f}, ")
    assert rows[3][1].endswith("(n=8)")
    assert rows[3][2].endswith(f"(n={repaired['n']})")
    assert "| policy | accuracy on test | repaired | by guessing | broken |" in card_of(facts)[1]


def test_the_card_says_what_the_hub_and_a_reader_must_know(facts: Facts):
    front_matter, text = card_of(facts)
    assert front_matter["license"] == "apache-2.0"
    assert front_matter["base_model"] == "Qwen/Qwen2.5-7B"
    assert front_matter["base_model_relation"] == "finetune"
    assert front_matter["language"] == ["en"]
    assert front_matter["library_name"] == "transformers"
    (result,) = front_matter["model-index"][0]["results"]
    assert facts.iterations[2].test is not None
    assert result["metrics"][0]["value"] == 100 * facts.iterations[2].test["accuracy"]["value"]
    assert NO_ADVICE in text
    assert "arXiv 2509.23368" in text
    assert "seeds | run 0 |" in text
    assert facts.policy.manifest.files["model.safetensors"] in text
    assert rows_of(text, "Data and licences") == [
        ["the clinic, made up by medcritical\\_ray", "16", "16", "8", "Apache-2.0"]
    ]
    assert "It is the version that the run ended with." in text
    assert "not finished" not in text


def with_last(facts: Facts, iteration: Iteration, **changes: Any) -> Facts:
    return dataclasses.replace(facts, iterations=[*facts.iterations[:2], iteration], **changes)


def test_a_version_that_was_not_adopted_is_called_so(facts: Facts):
    rejected = Rejected(rule="accuracy", figures={}, why="accuracy on dev fell by 9.0 points")
    decision = Decision(adopted_version=1, rejected=rejected)
    text = card_of(with_last(facts, dataclasses.replace(facts.iterations[2], decision=decision)))[1]
    assert "The run did not adopt this version: accuracy on dev fell by 9.0 points." in text
    assert "**iteration 2: this version**, not adopted" in text


def test_a_version_that_others_came_after_is_called_so(finished: RunDirectory):
    facts = facts_of(finished, chosen_policy(finished, 1))
    text = card_of(facts)[1]
    assert "The run adopted this version, and others after it; its latest is version 2." in text
    unfinished = with_last(facts, Iteration(number=2, phases={}), is_finished=False)
    assert "It is the version that the run has adopted last." in card_of(unfinished)[1]


@pytest.mark.parametrize(
    ("killed_at", "version", "done", "evaluated", "decided"),
    [
        (9, 0, 0, ["base"], False),  # before stage 1 was evaluated
        (16, 0, 0, ["base", "stage 1"], True),  # before version 1 was evaluated
        (20, 1, 1, ["base", "stage 1", "iteration 1"], True),  # in iteration 2
    ],
)
def test_of_an_unfinished_run_what_is_there_is_told(
    tmp_path: Path, killed_at: int, version: int, done: int, evaluated: list[str], decided: bool
):
    run = played(tmp_path, killed_at)
    facts = facts_of(run, chosen_policy(run, None))
    assert facts.policy.version == version
    assert [*(["base"] if facts.base else []), *(each.name for each in facts.iterations if each.test)] == evaluated
    front_matter, text = card_of(facts)
    assert f"**The run is not finished:** {done} of its 2 iterations were done" in text
    assert ("has not decided" in text) is not decided
    assert ("model-index" in front_matter) is (facts.iterations[version].test is not None)


def test_before_there_is_a_policy_nothing_is_exported(tmp_path: Path):
    with pytest.raises(UserError, match=r"no complete policy; complete versions in .*: none"):
        chosen_policy(played(tmp_path, killed_at=3), None)


HOSTILE = 'x | y\n---\n# z: ["&<img src=q>](http://q) `{{ c }}` {d: e}, $f$ 药'


def test_no_name_of_a_run_breaks_yaml_or_markdown(facts: Facts):
    source = {HOSTILE: {"train": 1, "dev": 1, "test": 1}}
    shared = {"questions": {"shared_stems": {HOSTILE: 0}}}
    front_matter, text = card_of(
        dataclasses.replace(facts, run=HOSTILE, sources=source, **shared),
        Base(title=HOSTILE, licence={"license": "other", "license_name": HOSTILE, "license_link": "http://q"}),
    )
    assert front_matter["license_name"] == HOSTILE
    assert front_matter["model-index"][0]["name"] == f"{HOSTILE}-v0002"
    assert rows_of(text, "Data and licences") == [[plain(HOSTILE), "1", "1", "1", UNKNOWN]]
    assert "<img" not in text.replace("\\<", "")
    headings = [line for line in text.splitlines() if line.startswith("# ")]
    assert headings == [f"# {plain(HOSTILE)}-v0002"]
    assert [line for line in text.splitlines() if line.startswith("---")] == []


def test_markup_in_a_name_is_shown_as_it_is():
    assert plain("a_b *c* [d](e) <f>\n# g | `h`") == r"a\_b \*c\* \[d\](e) \<f\> \# g \| \`h\`"


def test_what_is_not_known_is_named_before_publishing(facts: Facts):
    endpoint = {"base_url": "http://inside:8000/v1", "model": "big-1"}
    facts = changed(
        facts,
        questions={"kind": "file", "path": "/secret/x.csv"},
        student={"path": "/secret/my-model"},
        teacher={"kind": "distilled", "path": "/secret/templates", "endpoint": endpoint},
    )
    facts = dataclasses.replace(facts, sources={"cmexam": {"train": 9, "dev": 9, "test": 9}})
    base = base_of(facts, "full", None)
    front_matter, text = card_of(facts, base)
    assert front_matter["license"] == "unknown"
    assert "base_model" not in front_matter
    assert front_matter["language"] == ["zh"]
    assert "as in `答案: 维生素D (C)`" in text
    assert "- 维生素D (C)\n请逐步解答该题。" in text
    assert rows_of(text, "Data and licences")[0][-1] == UNKNOWN
    assert f"Model below: my-model; licence: {UNKNOWN}" in text
    assert "templates written by big-1" in text
    assert "secret" not in text
    assert "inside" not in text
    assert open_points(facts, "full", base) == [
        "licence of the questions of CMExam (arXiv 2306.03030): unknown",
        "licence of the model below (my-model): unknown",
        "terms of the model that taught: check what they allow",
    ]


def test_the_licence_of_the_base_is_the_one_in_its_own_card(facts: Facts, tmp_path: Path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: some-research\nlicense_link: https://x.org/l\n---\n# A model\n"
    )
    base = base_of(changed(facts, student={"path": str(tmp_path)}), "full", "some/model")
    assert (base.title, base.licence_name) == ("some/model", "some-research")
    front_matter, _ = card_of(facts, base)
    assert (front_matter["license"], front_matter["license_link"]) == ("other", "https://x.org/l")


@pytest.mark.parametrize(
    "content", ["# no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: 3\n---\n"]
)
def test_a_base_whose_card_tells_no_licence_has_an_unknown_one(facts: Facts, tmp_path: Path, content: str):
    (tmp_path / "README.md").write_text(content)
    assert base_of(changed(facts, student={"path": str(tmp_path)}), "full", None).licence_name == UNKNOWN


def test_contamination_is_counted_where_the_run_counted_it(facts: Facts):
    counted = {
        "read": {"rows": 1200, "loaded": 1190, "quarantined": 10, "reasons": {"no key": 10}},
        "shared_stems": {"train and dev": 0, "train and test": 0},
        "shared_stems_of_files": {"train and test": 7},
    }
    text = card_of(dataclasses.replace(facts, questions=counted))[1]
    assert "Rows read: 1,200; set aside as unusable: 10." in text
    assert "Normalised stems that two splits have in common: train and dev 0, train and test 0." in text
    assert "two files had in common before the splits were drawn: train and test 7." in text


def test_a_card_does_not_call_questions_held_out_that_were_trained_on(facts: Facts):
    held_out = "The test questions were used for nothing else."
    assert held_out in card_of(dataclasses.replace(facts, questions={"shared_stems": {"train and test": 0}}))[1]
    leaky = {"shared_stems": {"train and dev": 3, "train and test": 2, "dev and test": 0}}
    text = card_of(dataclasses.replace(facts, questions=leaky))[1]
    assert held_out not in text
    assert "The run used test questions for other things, too: train and test share 2 stems." in text


def test_an_adapter_is_served_over_its_base_at_a_rank_that_vllm_takes(facts: Facts):
    for rank, served in ((4, 8), (16, 16), (33, 64)):
        text = model_card(dataclasses.replace(facts, lora_rank=rank), "adapter", QWEN, has_chat_template=True)
        assert "vllm serve BASE --tokenizer DIRECTORY --enable-lora" in text
        assert f"--max-lora-rank {served} " in text
    assert "library_name: peft" in text
    assert "base_model_relation: adapter" in text


def test_without_a_chat_template_the_prompt_is_to_be_sent_as_text(facts: Facts):
    text = model_card(facts, "full", QWEN, has_chat_template=False)
    assert "/v1/completions" in text
    assert "apply_chat_template" not in text


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command ends with."""
    assert main(["export", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_directory_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    error = error_of(capsys, "--run", tmp_path / "none", "--out", tmp_path / "out")
    assert (
        error == f"error: --run {tmp_path / 'none'}: no run there: must be the directory of a run, such as runs/demo\n"
    )


def test_a_directory_that_holds_something_is_not_written_to(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        assert "exists and is not empty" in error_of(capsys, "--run", finished.path, "--out", out)


def test_nothing_is_written_into_a_run(finished: RunDirectory, capsys: pytest.CaptureFixture[str]):
    error = error_of(capsys, "--run", finished.path, "--out", finished.policies / "v0009")
    assert "lies in the run, which stays as it is" in error


def test_a_place_that_cannot_be_written_is_told_at_once(finished: RunDirectory, capsys: pytest.CaptureFixture[str]):
    assert "cannot be written below" in error_of(capsys, "--run", finished.path, "--out", "/proc/none/out")


def test_a_run_of_another_version_names_the_version_to_export_with(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = shutil.copytree(finished.path, tmp_path / "run")
    record = read_json(run / "run.json")
    write_json(run / "run.json", record | {"config": {"engines": {"num_wheels": 4}}})
    error = error_of(capsys, "--run", run, "--out", tmp_path / "out")
    assert f"is of another version: export with medcritical_ray {record['code_version']}" in error


@pytest.mark.parametrize("value", ["latest", "runs/x/v0001"])
def test_a_version_of_another_form_is_refused(finished: RunDirectory, value: str, capsys: pytest.CaptureFixture[str]):
    error = error_of(capsys, "--run", finished.path, "--policy", value, "--out", "out")
    assert error == f"error: --policy {value}: must be a version of the run, as v0003\n"


def test_a_policy_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "is of no run: must be as runs/demo/policies" in error_of(capsys, "--policy", tmp_path, "--out", "out")
    assert error_of(capsys, "--out", "out") == "error: no run is named: give --run DIR, such as runs/demo\n"


def test_a_policy_may_be_named_by_its_run_or_by_its_directory(finished: RunDirectory):
    by_run = argparse.Namespace(run=finished.path, policy="v0001")
    by_directory = argparse.Namespace(run=None, policy=str(finished.policies / "v0001"))
    for named in (by_run, by_directory):
        run, version = run_and_version(named)
        assert (run.path, version) == (finished.path, 1)
        assert policy_directory(named) == finished.policies / "v0001"
    assert policy_directory(argparse.Namespace(run=finished.path, policy=None)) == finished.policies / "v0002"


def test_a_name_on_the_hub_of_another_form_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["export", "--run", "runs/demo", "--out", "out", "--base", "qwen"])
    assert "argument --base: qwen: should be" in capsys.readouterr().err


def test_a_directory_is_written_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with suppress(KeyboardInterrupt), atomic_directory(tmp_path / "out") as directory:
        (directory / "half").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
    with atomic_directory(tmp_path / "out") as directory:
        (directory / "inner").mkdir()
        (directory / "inner" / "whole").write_text("")
    assert sorted(tmp_path.rglob("*")) == [
        tmp_path / "out",
        tmp_path / "out" / "inner",
        tmp_path / "out" / "inner" / "whole",
    ]
