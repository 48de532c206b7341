import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from medcritical_ray.chat import load_tokenizer, prompt_token_ids, render
from medcritical_ray.errors import UserError


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Words, with the space before them as part of them: "a" is 2, " b" is 3, a line break 4, "<user>" 5."""
    words = {"<unk>": 0, "<eos>": 1, "a": 2, " b": 3, "\n": 4, "<user>": 5}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(word, "isolated") for word in ("\n", " b")])
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")


def test_without_a_chat_template_a_prompt_ends_with_a_line_break(tokenizer: PreTrainedTokenizerFast):
    assert render(tokenizer, "a b") == "a b\n"


def test_with_a_chat_template_a_prompt_is_the_users_turn(tokenizer: PreTrainedTokenizerFast):
    turn = "<{{ messages[0].role }}>{{ messages[0].content }}"
    tokenizer.chat_template = turn + "{% if add_generation_prompt %}<model>{% endif %}"
    assert render(tokenizer, "a b") == "<user>a b<model>"


def test_prompts_are_rendered_and_tokenised(tokenizer: PreTrainedTokenizerFast):
    assert prompt_token_ids(tokenizer, ["a b", "a"]) == [[2, 3, 4], [2, 4]]


def test_no_prompts_are_no_tokens(tokenizer: PreTrainedTokenizerFast):
    assert prompt_token_ids(tokenizer, []) == []


def test_a_word_level_tokenizer_beside_a_qwen2_config_is_loaded_as_it_is(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert load_tokenizer(tmp_path)("a b\n").input_ids == [2, 3, 4]


def test_a_tokenizer_without_a_named_class_is_loaded(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    assert load_tokenizer(tmp_path)("a").input_ids == [2]


def test_a_damaged_tokenizer_is_told_in_one_line(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)
