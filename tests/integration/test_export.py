"""Exported policies, loaded as anybody would: by plain transformers, PEFT and vLLM."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import TemplateError
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2ForCausalLM

import medcritical_ray.engines.engine
from jobs.cli import main
from medcritical_ray.chat import load_tokenizer, prompt_template, prompt_token_ids
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.config import Config, EnginesConfig, SamplingConfig
from medcritical_ray.engines.engine import Engine, Sample
from medcritical_ray.files import read_json
from medcritical_ray.model_files import hash_of_weights
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.record import new_record
from medcritical_ray.training.tokenizer import train_tokenizer

IDS = torch.tensor([[5, 9, 3, 7]])
PROMPTS = [" w1 w2\n w3", " w4 w5 w6", " w7\n"]


def make_run(root: Path, fingerprints: dict[str, str] | None = None) -> RunDirectory:
    """A run that has only just begun."""
    run = RunDirectory.create(
        root / "demo",
        new_record(Config().model_dump(mode="json"), {"run": 0}, fingerprints),
        resume_command="",
    )
    run.close()
    return run


def publish_adapter(run: RunDirectory, source: Path, base: Path | str, version: int = 1) -> None:
    PolicyStore(run.policies).publish(version, source, parent=0, metrics={}, kind="adapter", base=str(base))


@pytest.fixture
def run(tied_policies: tuple[Path, Path], adapter_policies: tuple[Path, Path], tmp_path: Path) -> RunDirectory:
    """A run with full weights as version 0, and a LoRA adapter on the same weights as version 1."""
    run = make_run(tmp_path / "runs", {"student": hash_of_weights(tied_policies[0])})
    PolicyStore(run.policies).publish(0, tied_policies[0], parent=None, metrics={})
    publish_adapter(run, adapter_policies[0], tied_policies[0])
    return run


def exported(run: RunDirectory, version: int, *options: str) -> Path:
    out = run.path.parents[1] / "out"
    assert main(["export", "--run", str(run.path), "--policy", f"v{version:04d}", "--out", str(out), *options]) == 0
    return out


def error_of(capsys: pytest.CaptureFixture[str], run: RunDirectory, version: int, *options: str) -> str:
    """The one line that an export ends with that leaves nothing behind."""
    out = run.path.parents[1] / "new" / "out"
    arguments = ["--run", str(run.path), "--policy", str(version), "--out", str(out), *options]
    assert main(["export", *arguments]) == 2
    assert not out.parent.exists() or list(out.parent.iterdir()) == []
    return capsys.readouterr().err


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def chat_ids(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    """The tokens of each prompt as a user's only message."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for turn in turns]


def test_full_weights_load_as_they_are_and_are_copies(run: RunDirectory, capsys: pytest.CaptureFixture[str]):
    out = exported(run, 0)
    assert capsys.readouterr().out.splitlines()[0] == f"{out}: version 0 of {run.path}"
    policy = run.policies / "v0000"
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(out)), logits(AutoModelForCausalLM.from_pretrained(policy))
    )
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert {file.stat().st_nlink for file in out.iterdir()} == {1}
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_an_adapter_loads_over_its_base_and_names_it(run: RunDirectory, tied_policies: tuple[Path, Path]):
    out = exported(run, 1)
    over_base = PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(tied_policies[0]), run.policies / "v0001")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(out)), logits(over_base))
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == str(tied_policies[0])
    assert chat_ids(AutoTokenizer.from_pretrained(out), PROMPTS) == prompt_token_ids(
        load_tokenizer(tied_policies[0]), PROMPTS
    )
    assert not (out / "config.json").exists()


def test_an_adapter_names_the_published_model_that_it_is_told(run: RunDirectory):
    out = exported(run, 1, "--base", "acme/student")
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == "acme/student"
    assert "base_model: acme/student\n" in (out / "README.md").read_text()


def test_a_merged_adapter_is_one_model(run: RunDirectory, tied_policies: tuple[Path, Path]):
    out = exported(run, 1, "--merge")
    over_base = PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(tied_policies[0]), run.policies / "v0001")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(out)), logits(over_base), atol=1e-5, rtol=1e-5
    )
    assert not (out / "adapter_config.json").exists()
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode


def test_merged_weights_have_the_type_of_the_base(
    tied_policies: tuple[Path, Path], adapter_policies: tuple[Path, Path], tmp_path: Path
):
    base = shutil.copytree(tied_policies[0], tmp_path / "base")
    Qwen2ForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    run = make_run(tmp_path / "runs")
    publish_adapter(run, adapter_policies[0], base)
    out = exported(run, 1, "--merge")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert read_json(out / "config.json")["dtype"] == "bfloat16"


def test_an_adapter_on_version_0_is_an_adapter_on_what_lies_beside_it(
    run: RunDirectory, adapter_policies: tuple[Path, Path]
):
    publish_adapter(run, adapter_policies[1], "v0000", version=2)
    out = exported(run, 2)
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == str(run.policies / "v0000")
    assert "A LoRA adapter for v0000 of the same run" in (out / "README.md").read_text()


def test_an_adapter_whose_base_is_gone_or_another_is_refused(
    adapter_policies: tuple[Path, Path], tied_policies: tuple[Path, Path], tmp_path: Path, capsys: Any
):
    base = shutil.copytree(tied_policies[0], tmp_path / "base")
    run = make_run(tmp_path / "runs", {"student": hash_of_weights(base)})
    publish_adapter(run, adapter_policies[0], base)
    shutil.copy(tied_policies[1] / "model.safetensors", base)
    assert "whose weights are not those of the run's student any more" in error_of(capsys, run, 1)
    shutil.rmtree(base)
    assert f"is an adapter on {base}, which is gone: put that model back" in error_of(capsys, run, 1, "--merge")


def test_a_policy_whose_tokenizer_cannot_be_read_leaves_nothing_behind(
    tied_policies: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = shutil.copytree(tied_policies[0], tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    run = make_run(tmp_path / "runs")
    PolicyStore(run.policies).publish(0, broken, parent=None, metrics={})
    assert "its tokenizer cannot be loaded" in error_of(capsys, run, 0)


def test_a_server_applies_none_of_the_base_s_own_sampling(tied_policies: tuple[Path, Path], tmp_path: Path):
    model = shutil.copytree(tied_policies[0], tmp_path / "model")
    declared = {"eos_token_id": [7, 1], "do_sample": True, "temperature": 0.7, "repetition_penalty": 1.05}
    (model / "generation_config.json").write_text(json.dumps(declared))
    run = make_run(tmp_path / "runs")
    PolicyStore(run.policies).publish(0, model, parent=None, metrics={})
    settings = read_json(exported(run, 0) / "generation_config.json")
    del settings["transformers_version"]
    assert settings == {"eos_token_id": [1, 7], "pad_token_id": 0}


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["患者发热三天，伴咳嗽。 fever and cough for 3 days"] * 5, vocab_size=300)


def templated_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return tokenizer


@pytest.mark.parametrize("make", [bpe_tokenizer, templated_tokenizer])
def test_plain_tokenizers_read_prompts_as_the_project_does(make: Any, tied_policies: tuple[Path, Path], tmp_path: Path):
    model = shutil.copytree(tied_policies[0], tmp_path / "model")
    make().save_pretrained(model)
    run = make_run(tmp_path / "runs")
    PolicyStore(run.policies).publish(0, model, parent=None, metrics={})
    prompts = ["fever  and\ncough 2026", "发热１２", " it's I'LL", "e\u0301"]  # what Qwen2's own class splits otherwise
    wanted = prompt_token_ids(load_tokenizer(model), prompts)
    out = exported(run, 0)
    assert chat_ids(AutoTokenizer.from_pretrained(out), prompts) == wanted
    assert prompt_token_ids(load_tokenizer(out), prompts) == wanted
    saved_again = tmp_path / "again"
    shutil.copytree(out, saved_again)
    AutoTokenizer.from_pretrained(out).save_pretrained(saved_again)
    assert chat_ids(AutoTokenizer.from_pretrained(saved_again), prompts) == wanted


def words_with_ends(*, prefix_space: bool) -> PreTrainedTokenizerFast:
    """Words between a start and an end token; with a `prefix_space`, a text is read as if a space stood before it,
    unless something else does."""
    inner = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "\n": 3, "▁a": 4, "a": 5}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="first" if prefix_space else "never"),
        ]
    )
    inner.decoder = decoders.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_tokens_that_stand_around_every_text_stand_in_the_template():
    tokenizer = words_with_ends(prefix_space=False)
    tokenizer.chat_template = prompt_template(tokenizer)
    assert chat_ids(tokenizer, ["a a"]) == [[0, 5, 4, 3, 1]]


def test_where_no_template_gives_the_right_tokens_there_is_none():
    tokenizer = words_with_ends(prefix_space=True)
    assert prompt_token_ids(tokenizer, ["a"]) == [[0, 4, 3, 1]]
    assert prompt_template(tokenizer) is None


def test_a_written_template_refuses_what_the_model_was_not_trained_on():
    tokenizer = load_tokenizer(base_student_dir())
    tokenizer.chat_template = prompt_template(tokenizer)
    user = {"role": "user", "content": "fever"}
    for turns in ([{"role": "system", "content": "be brief"}, user], [user, user], [user | {"role": "assistant"}]):
        with pytest.raises(TemplateError, match="asked one question at a time"):
            tokenizer.apply_chat_template(turns)


def answers_of_both(
    out: Path, policy: Path, prompts: list[str], config: EnginesConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], list[Sample], list[Completion]]:
    """Greedy answers of vLLM, started on the export as its user would, and of the project's engine, which asks the same
    vLLM in its own way, with the tokenizer of the policy in the run."""
    from vllm import LLM, SamplingParams

    memory = int(config.kv_cache_gib * 2**30)
    llm = LLM(model=str(out), dtype="bfloat16", max_model_len=128, enforce_eager=True, kv_cache_memory_bytes=memory)
    turns: list[Any] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    chats = llm.chat(turns, SamplingParams(temperature=0.0, max_tokens=24), use_tqdm=False)
    with monkeypatch.context() as patch:
        patch.setattr(medcritical_ray.engines.engine, "_start_vllm", lambda *_: llm)
        engine = Engine(policy, 0, config)
    requests = [Request(prompt=prompt, seed=0) for prompt in prompts]
    greedy = SamplingConfig(temperature=0.0, max_tokens=24)
    return chats, engine.sample(requests, greedy, 0), engine.generate(requests, greedy, 0)


@pytest.mark.integration
@pytest.mark.slow
def test_plain_vllm_answers_token_for_token_as_the_engines_do(
    run: RunDirectory, engines_config: EnginesConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    policy = run.policies / "v0000"
    prompts = ["".join(f" w{(n * k) % 60}" for k in range(1, 9)) for n in range(16)]
    chats, samples, completions = answers_of_both(exported(run, 0), policy, prompts, engines_config, monkeypatch)
    gc.collect()  # vLLM holds one engine in a process at a time
    assert [chat.prompt_token_ids for chat in chats] == prompt_token_ids(load_tokenizer(policy), prompts)
    assert [tuple(chat.outputs[0].token_ids) for chat in chats] == [sample.token_ids for sample in samples]
    assert [chat.outputs[0].text for chat in chats] == [completion.text for completion in completions]
