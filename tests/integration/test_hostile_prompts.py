"""Control tokens that a text spells out are text to a model, whatever the tokenizer and the chat template."""

from itertools import product

import pytest
from hostile import NASTY, plain, texts
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from medcritical_ray.chat import load_tokenizer, prompt_token_ids
from medcritical_ray.clinic.base import base_student_dir
from medcritical_ray.literal import control_ids, conversation_ids, written_ids
from medcritical_ray.records import Demonstration
from medcritical_ray.training.examples import sft_examples

CONTROLS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "[INST]"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and control tokens; as Qwen's, it does not call <think> special."""
    alphabet = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(CONTROLS)
    inner.add_tokens([AddedToken("<think>", normalized=False), AddedToken("amoxicillin")])
    start = ("<|endoftext|>", inner.token_to_id("<|endoftext|>"))
    inner.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[start])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", clean_up_tokenization_spaces=False)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHATML
    return tokenizer


PLAIN, CHAT, CLINIC = byte_tokenizer(), chat_tokenizer(), load_tokenizer(base_student_dir())
prompts = st.lists(texts.map(plain) | st.sampled_from([*CONTROLS, "<think>", "amoxicillin", " "]), max_size=5).map(
    "".join
)


def controls(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(control_ids(tokenizer, ids))


@given(prompts)
def test_a_prompt_has_the_control_tokens_of_its_template_and_no_other(prompt: str):
    [of_chat], [of_plain] = prompt_token_ids(CHAT, [prompt]), prompt_token_ids(PLAIN, [prompt])
    assert controls(CHAT, of_chat) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert controls(PLAIN, of_plain) == ["<|endoftext|>"]
    assert PLAIN.decode(of_plain) == f"<|endoftext|>{prompt}\n"
    assert CHAT.decode(of_chat) == f"<|im_start|>user\n{prompt.strip()}<|im_end|>\n<|im_start|>assistant\n"


@given(prompts)
def test_nor_has_one_of_a_tokenizer_of_words(prompt: str):
    assert controls(CLINIC, prompt_token_ids(CLINIC, [prompt])[0]) == []


@pytest.mark.parametrize(("tokenizer", "text"), list(product([PLAIN, CHAT, CLINIC], NASTY.values())))
def test_a_prompt_is_read_alike_alone_and_among_others(tokenizer: PreTrainedTokenizerFast, text: str):
    alone = prompt_token_ids(tokenizer, [plain(text)])
    assert prompt_token_ids(tokenizer, ["What helps?", plain(text)])[1:] == alone


def test_an_ordinary_prompt_is_read_as_ever():
    ids = CHAT(
        "<|im_start|>user\nfever < 38 °C, amoxicillin<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False
    )
    assert prompt_token_ids(CHAT, ["fever < 38 °C, amoxicillin"]) == [ids.input_ids]
    assert CHAT.convert_tokens_to_ids("amoxicillin") in ids.input_ids


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), prompts), min_size=1, max_size=3))
def test_a_conversation_has_the_control_tokens_of_its_template_and_no_other(turns: list[tuple[str, str]]):
    messages = [{"role": role, "content": content} for role, content in turns]
    ids = conversation_ids(CHAT, messages, add_generation_prompt=True)
    assert controls(CHAT, ids) == ["<|im_start|>", "<|im_end|>"] * len(turns) + ["<|im_start|>"]
    turns_text = "".join(f"<|im_start|>{role}\n{content.strip()}<|im_end|>\n" for role, content in turns)
    assert CHAT.decode(ids) == f"{turns_text}<|im_start|>assistant\n"


@given(prompts)
def test_what_a_policy_is_to_write_ends_where_the_text_does(text: str):
    response = Demonstration(question_id="q", task="solve", prompt="Which?", response=text)
    [example] = sft_examples(CHAT, [response], max_length_tokens=100_000).examples
    special = set(CHAT.convert_tokens_to_ids(CONTROLS))
    assert [each for each in example.completion_ids if each in special] == [CHAT.eos_token_id]
    assert CHAT.decode(example.completion_ids) == f"{text}<|im_end|>"


def test_what_a_policy_thought_is_trained_on_as_it_was_written():
    think = CHAT.convert_tokens_to_ids("<think>")
    assert written_ids(CHAT, ["<think>x"])[0][0] == think
    assert written_ids(CHAT, ["<think></s>"])[0][0] == think
