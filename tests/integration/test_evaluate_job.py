"""`medcritical evaluate`: what is decided, and refused, before anything starts."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jobs.cli import main
from jobs.evaluate import check_out, comparison, exact_set, keep_questions, provenance
from jobs.parts.evaluation_config import (
    check_policies_fit,
    checked_policy,
    config_of_policy,
    evaluation_config,
    fitted,
)
from medcritical_ray.config import Config, EnginesConfig
from medcritical_ray.context import longest_prompt_tokens
from medcritical_ray.engines.served import ServedPolicy
from medcritical_ray.errors import UserError
from medcritical_ray.planning.fit import ClusterResources
from medcritical_ray.planning.placement import Node
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Option, Question
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.provenance import find_run, stems_trained_on
from medcritical_ray.run.record import new_record

OPTIONS = (Option("A", "yes"), Option("B", "no"), Option("C", "both"))
QUESTIONS = [
    Question(id="q1", source="test", stem="Is it?", options=OPTIONS, key="A"),
    Question(id="q2", source="test", stem="Which are?", options=OPTIONS, key="BC"),
    Question(id="q3", source="test", stem="Which ones are?", options=OPTIONS, key="AC"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory with all its files, whose context has 128 tokens; every word and mark is a token."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    directory = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>").save_pretrained(directory)
    save_file({"embed.weight": torch.zeros(2, 4)}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 128}))
    return directory


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    write_questions(tmp_path / "questions.parquet", QUESTIONS)
    return tmp_path / "questions.parquet"


@pytest.fixture
def published(model: Path, tmp_path: Path) -> Path:
    """The same model, published by a run whose engines have a context of 100 tokens."""
    values = {"engines": {"num_gpus": 0, "max_model_len": 100}}
    values |= {part: {"sampling": {"max_tokens": 20}} for part in ("generate", "correct")}
    config = Config.model_validate(values).model_dump(mode="json")
    path = tmp_path / "runs" / "demo"
    with RunDirectory.create(path, new_record(config), resume_command="") as run:
        store = PolicyStore(run.policies)
        store.publish(0, model, parent=None, metrics={})
    return store.path_of(0)


def config_of(
    model: Path, questions: Path, *overrides: str, file: Path | None = None, has_gpu: bool = False
) -> tuple[Config, str]:
    return evaluation_config(file, list(overrides), [model], questions, run=find_run(model), has_gpu=has_gpu)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command ends with, after what it may have told of its work."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *told, error = printed.err.splitlines(keepends=True)
    assert told in ([], ["checking questions and models\n"])
    return error


def test_without_a_policy_nothing_is_done(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "--questions", "q.csv", "--out", "out.json"]) == 2
    assert capsys.readouterr().err == "error: no policy is named: give --policy DIR, or --run DIR\n"


def test_a_policy_that_is_not_there_is_one_line(tmp_path: Path, questions: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.json"
    error = error_of(capsys, "--policy", tmp_path / "none", "--questions", questions, "--out", out)
    assert error.startswith(f"error: {tmp_path / 'none'}: no such directory")
    assert not out.exists()


def test_a_file_without_questions_leaves_an_older_result_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty.csv").write_text("Question,Options,Answer\n")
    out = tmp_path / "out.json"
    out.write_text("older")
    error = error_of(capsys, "--policy", model, "--questions", tmp_path / "empty.csv", "--out", out)
    assert "empty.csv has no rows" in error
    assert out.read_text() == "older"


def test_the_result_never_replaces_the_questions(model: Path, questions: Path, capsys: pytest.CaptureFixture[str]):
    error = error_of(capsys, "--policy", model, "--questions", questions, "--out", questions)
    assert error.endswith("is the file of questions\n")


def test_the_result_is_no_directory(model: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    error = error_of(capsys, "--policy", model, "--questions", questions, "--out", tmp_path)
    assert error.endswith("is a directory: must be a file\n")


def test_a_model_without_weights_is_refused(model: Path):
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights: \*\.safetensors files must lie there"):
        checked_policy(model)


def test_a_model_without_a_tokenizer_is_refused(model: Path):
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        checked_policy(model)


def test_a_policy_that_was_not_published_completely_is_refused(published: Path):
    (published / "COMPLETE").unlink()
    with pytest.raises(UserError, match="never published completely"):
        checked_policy(published)


def test_a_published_policy_takes_the_config_of_its_run(published: Path, questions: Path):
    config, origin = config_of(published, questions, "evaluate.num_passes=2")
    assert (config.engines.max_model_len, config.generate.sampling.max_tokens) == (100, 20)
    assert config.evaluate.num_passes == 2
    assert origin == str(published.parents[1] / "run.json")


def test_a_config_file_goes_before_that_of_the_run(published: Path, questions: Path, tmp_path: Path):
    file = tmp_path / "my.toml"
    file.write_text(
        "[generate]\nsampling = { max_tokens = 7 }\n[correct]\nsampling = { max_tokens = 7 }\n"
        "[engines]\nmax_model_len = 128\n"
    )
    config, origin = config_of(published, questions, file=file)
    assert config.generate.sampling.max_tokens == 7
    assert origin == str(file)


def test_a_run_of_another_version_asks_for_a_config(published: Path, questions: Path):
    file = published.parents[1] / "run.json"
    record = json.loads(file.read_text())
    record["config"]["engines"]["num_wheels"] = 4
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"run\.json is of another version: name one with --config"):
        config_of(published, questions)


def test_any_other_model_has_a_config_that_fits_its_context(model: Path, questions: Path):
    config, origin = config_of(model, questions)
    assert config.engines.max_model_len == 128
    longest = longest_prompt_tokens(model, QUESTIONS, corrected=True)
    assert config.generate.sampling.max_tokens == (128 - longest) // 2
    assert config.engines.num_gpus == 0
    assert origin.endswith("evaluate_cpu.toml")


def test_an_attempt_and_its_correction_share_what_the_longest_prompt_leaves(model: Path):
    assert fitted(Config(), {model: 38}) == [
        "engines.max_model_len=128",
        "generate.sampling.max_tokens=45",
        "correct.sampling.max_tokens=45",
    ]


def test_an_override_goes_before_what_fits(model: Path, questions: Path):
    config, _ = config_of(model, questions, "generate.sampling.max_tokens=9")
    assert config.generate.sampling.max_tokens == 9


def test_a_gpu_is_used_where_there_is_one(model: Path, questions: Path):
    config, origin = config_of(model, questions, has_gpu=True)
    assert config.engines.num_gpus == 1
    assert origin.endswith("evaluate_gpu.toml")


def test_whether_there_is_a_gpu_is_for_the_cluster_to_say(
    model: Path, questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    there = ClusterResources(num_cpus=4, num_gpus=1, memory_gib=100, disk_gib=1, gpu_memory_gib=0.1)
    monkeypatch.setattr("actors.cluster.connected", lambda *_, **how: nullcontext(there))
    words = ["--policy", model, "--questions", questions, "--out", questions.parent / "out.json"]
    assert main(["evaluate", *map(str, words)]) == 2
    assert "GiB needed for an engine's weights, work and one sequence" in capsys.readouterr().err


def test_a_model_whose_context_holds_no_question_is_refused(model: Path, questions: Path):
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 30}))
    with pytest.raises(UserError, match="a context of 30 tokens is too short"):
        config_of(model, questions)


def test_a_context_too_short_for_the_prompts_names_the_key(published: Path, questions: Path):
    with pytest.raises(UserError, match=r"engines\.max_model_len = 50: must be at least"):
        config_of(published, questions, "engines.max_model_len=50")


def test_where_nothing_is_corrected_a_shorter_context_will_do(published: Path, questions: Path):
    config, _ = config_of(published, questions, "engines.max_model_len=70", "evaluate.corrected_share=0")
    assert config.engines.max_model_len == 70


def test_engines_that_do_not_fit_are_refused_with_the_keys_to_change(model: Path):
    config = Config(engines=EnginesConfig(num_engines=2, num_cpus=3, num_gpus=1, kv_cache_gib=1))
    resources = ClusterResources(num_cpus=4, num_gpus=0, memory_gib=1, disk_gib=1)
    with pytest.raises(UserError) as caught:
        check_policies_fit(config, [ServedPolicy(version=0, model_dir=model)], resources)
    assert str(caught.value).startswith(
        "the engines do not fit the cluster: CPUs: 6 needed, 4 there: lower engines.num_engines or engines.num_cpus; "
        "GPUs: 2 needed, 0 there: to run on CPUs, set engines.num_gpus = 0; memory: "
    )
    check_policies_fit(config, [ServedPolicy(version=0, model_dir=model)], replace(resources, grows=True))


def test_engines_are_evaluated_on_the_nodes_of_their_labels_or_refused(model: Path):
    config = Config(engines=EnginesConfig(num_cpus=1, num_gpus=0, kv_cache_gib=0.1, labels={"role": "engine"}))
    node = Node(labels={"role": "engine"}, num_cpus=4, num_gpus=0, memory_gib=100)
    there = ClusterResources(num_cpus=4, num_gpus=0, memory_gib=100, disk_gib=1, nodes=(node,))
    check_policies_fit(config, [ServedPolicy(version=0, model_dir=model)], there)
    with pytest.raises(UserError, match=r"engines: no node is labelled role=engine: .* or change engines\.labels"):
        check_policies_fit(
            config, [ServedPolicy(version=0, model_dir=model)], replace(there, nodes=(replace(node, labels={}),))
        )


def test_an_engine_that_is_too_large_for_its_gpu_is_refused(model: Path):
    small_gpu = ClusterResources(num_cpus=4, num_gpus=1, memory_gib=100, disk_gib=1, gpu_memory_gib=2)
    with pytest.raises(
        UserError, match=r"GPU memory: 2\.. GiB needed for an engine's .* 0\.85 of 2\.0 GiB there: raise"
    ):
        check_policies_fit(Config(), [ServedPolicy(version=0, model_dir=model)], small_gpu)
    check_policies_fit(Config(), [ServedPolicy(version=0, model_dir=model)], replace(small_gpu, gpu_memory_gib=80))


def test_a_policy_whose_run_has_an_unreadable_split_is_refused_before_engines_start(
    published: Path, questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actors.cluster.connected", lambda *_, **how: pytest.fail("the cluster was asked for"))
    split = published.parents[1] / "data" / "train.parquet"
    split.parent.mkdir()
    split.write_bytes(b"cut off")
    error = error_of(capsys, "--policy", published, "--questions", questions, "--out", questions.parent / "out.json")
    assert "train.parquet" in error


def test_engines_serve_adapters_of_the_rank_that_the_policy_has(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text('{"r": 6}')
    adapter = ServedPolicy(version=0, model_dir=tmp_path, adapter_dir=tmp_path)
    served = config_of_policy(Config(), adapter, "policy")
    assert (served.sft.method, served.dpo.method, served.dpo.lora.rank) == ("full", "lora", 6)
    full = config_of_policy(Config(), ServedPolicy(version=0, model_dir=tmp_path), "against")
    assert (full.sft.method, full.dpo.method, full.run.name) == ("full", "full", "evaluate-against")


def test_questions_with_several_letters_have_an_accuracy_of_their_own(questions: Path):
    found = exact_set(QuestionSet.whole(questions, 2), {"q1": True, "q2": False, "q3": True})
    assert found is not None
    assert (found["k"], found["n"]) == (1, 2)


def test_bad_rows_are_counted_beside_the_questions_kept(tmp_path: Path):
    shutil.copy(Path(__file__).parents[1] / "data" / "cmexam_sample.csv", tmp_path / "sample.csv")
    quarantine = keep_questions(tmp_path / "sample.csv", "auto", {}, tmp_path / "kept.parquet")
    assert quarantine.counts() == {"rows": 8, "loaded": 7, "quarantined": 1, "reasons": {"no key": 1}}
    assert QuestionSet.whole(tmp_path / "kept.parquet", 200).num_questions == 7


def test_questions_that_the_policy_s_run_trains_on_are_counted(published: Path, model: Path):
    run = published.parents[1]
    assert stems_trained_on(published, QUESTIONS) is None  # the run has no questions yet
    write_questions(run / "data" / "train.parquet", [*QUESTIONS[1:], replace(QUESTIONS[0], id="q9", stem="is it")])
    shared = stems_trained_on(published, QUESTIONS[:1])
    assert shared is not None
    assert (shared.num_stems, shared.examples) == (1, [("q1", "q9", "Is it?")])
    assert stems_trained_on(model, QUESTIONS) is None


def test_the_gain_is_that_of_the_policy_over_the_other():
    policy = {"q1": True, "q2": True, "q3": True, "q4": False}
    against = {"q1": True, "q2": False, "q3": False, "q4": True}
    assert comparison(policy, against) == {
        "num_questions": 4,
        "both": 1,
        "only_against": 1,
        "only_policy": 2,
        "p_value": 1.0,
        "gain": 0.25,
    }


def test_the_result_says_what_it_depends_on(questions: Path):
    found = provenance(Config(), "my.toml", questions)
    assert found["config_from"] == "my.toml"
    assert found["config"]["evaluate"]["num_passes"] == 4
    assert len(found["fingerprints"]["questions"]) == 64


@pytest.mark.parametrize("out", ["model/config.json/r.json", "/proc/none/r.json"])
def test_a_result_that_cannot_be_written_is_refused_at_once(out: str, tmp_path: Path, model: Path):
    with pytest.raises(UserError, match="cannot be written below"):
        check_out(tmp_path / out, tmp_path / "q.jsonl")
