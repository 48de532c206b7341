"""The whole job, once: two models whose every answer is known, each on real engines of its own."""

import json
from pathlib import Path

import pytest
import ray
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from jobs.cli import main
from medcritical_ray.corrections import format_keep
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Option, Question

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OPTIONS = (Option("A", "rest"), Option("B", "water"))
KEYS = ["A", "A", "A", "B", "B", "AB"]
QUESTIONS = [
    Question(
        id=f"q{n}",
        source="test",
        stem="What?",
        options=OPTIONS,
        key=key,
        labels={"field": "surgery" if n else "ethics"},
    )
    for n, key in enumerate(KEYS)
]
TO_A = "Check: the answer is wrong: no.\nAnswer: rest (A)"
TO_B = "Check: the answer is wrong: no.\nAnswer: water (B)"


def save_model(directory: Path, solve: str, repair: str, check: str) -> Path:
    """Saves a model that always gives the same three answers.

    Lines of a prompt and whole answers are its tokens. A token's embedding is one number that no layer changes, and the
    output head is the table of what comes after which token.
    """
    unkeyed = QUESTIONS[0].unkeyed()
    prompts = [solve_prompt(unkeyed), *(correction_prompt(unkeyed, "", task) for task in ("repair", "check"))]
    last_lines = [prompt.splitlines()[-1] + "\n" for prompt in prompts]
    words = list(dict.fromkeys(["<eos>", "<unk>", *last_lines, solve, repair, check]))
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]*\n"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(directory)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    following = dict(zip(last_lines, (solve, repair, check), strict=True))
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 64))
        model.lm_head.weight.zero_()
        for number, word in enumerate(words):
            model.lm_head.weight[words.index(following.get(word, "<eos>")), number] = 10.0
    model.save_pretrained(directory)
    return directory


def test_one_model_is_measured_against_another(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    policy = save_model(tmp_path / "one", solve="Answer: rest (A)", repair=TO_B, check=format_keep())
    against = save_model(tmp_path / "other", solve="Answer: rest (B)", repair="I do not know.", check=TO_A)
    write_questions(tmp_path / "q.jsonl", QUESTIONS)
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write('{"stem": "What?", "options": [], "key": "A"}\n')
    arguments = ["--policy", policy, "--against", against, "--questions", tmp_path / "q.jsonl"]
    arguments += ["--out", tmp_path / "new" / "result.json", "--set", "evaluate.num_passes=2", "--by", "field"]
    assert main(["evaluate", *map(str, arguments)]) == 0
    result = json.loads((tmp_path / "new" / "result.json").read_text())
    assert (result["questions"]["rows"], result["questions"]["reasons"]) == (7, {"no options": 1})
    assert counts(result["policy"]) == {
        "accuracy": (3, 6),
        "parse_rate": (6, 6),
        "finish_rate": (6, 6),
        "agreement_rate": (6, 6),
        "self_consistency": (3, 6),
        "wrong_to_right": (2, 3),
        "right_to_wrong": (0, 3),
        "self_corrected": (3, 6),
        "before_correction": (3, 6),
        "exact_set": (0, 1),
    }
    assert counts(result["against"][0]) == {
        "accuracy": (2, 6),
        "parse_rate": (6, 6),
        "finish_rate": (6, 6),
        "agreement_rate": (0, 6),
        "self_consistency": (2, 6),
        "wrong_to_right": (0, 4),
        "right_to_wrong": (2, 2),
        "self_corrected": (3, 6),
        "before_correction": (2, 6),
        "exact_set": (0, 1),
    }
    # An answer is a token and its end; blind guesses among one other option always name it.
    assert (result["policy"]["mean_tokens"], result["policy"]["wrong_to_right_by_guessing"]) == (2.0, 1.0)
    assert (result["policy"]["pass_at"], result["policy"]["answer_entropy_bits"]) == ({"1": 0.5, "2": 0.5}, 0.0)
    paired = result["against"][0]["comparison"]
    assert (paired["both"], paired["only_policy"], paired["only_against"], paired["p_value"]) == (0, 3, 2, 1.0)
    assert counts(result["policy"]["by_label"]["field"]) == {"ethics": (1, 1), "surgery": (2, 5)}
    printed = capsys.readouterr().out
    assert "50.0 % [18.8, 81.2] (n=6)" in printed
    assert "field: surgery" in printed
    assert all(row in printed for row in ("stems seen in training", "repaired, by guessing", "broken"))
    assert result["policy"]["trained_on"] is None
    assert ray.is_initialized()


def counts(figures: dict) -> dict[str, tuple[int, int]]:
    """The proportions among the figures, each as k of n."""
    return {
        name: (value["k"], value["n"]) for name, value in figures.items() if isinstance(value, dict) and "k" in value
    }
