"""From records to tokens and batches."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from medcritical_ray.errors import UserError
from medcritical_ray.records import Demonstration, PreferencePair
from medcritical_ray.training.batches import dpo_batch, forward_passes, plan_steps, sft_batch
from medcritical_ray.training.examples import DpoExample, SftExample, dpo_examples, sft_examples
from medcritical_ray.training.tokenizer import train_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "\n", "cough", "fever", "cold", "flu", "rest"]
PAD, EOS, UNK, BREAK, COUGH, FEVER, COLD, FLU, REST = range(9)


def word_tokenizer(eos_token: str | None = "<eos>") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=eos_token, unk_token="<unk>"
    )


def demonstration(prompt: str, response: str) -> Demonstration:
    return Demonstration(question_id="q", task="solve", prompt=prompt, response=response)


def pair(prompt: str, chosen: str, rejected: str, prefix: str = "", rest: str = "") -> PreferencePair:
    return PreferencePair(
        iteration=1,
        question_id="q",
        source="own",
        attempt=0,
        prompt=prompt,
        prefix=prefix,
        chosen=chosen,
        rejected=rejected,
        rest=rest,
        chosen_version=0,
        rejected_version=0,
        reason="",
    )


def test_a_demonstration_is_its_prompt_then_its_response_and_the_end_token():
    tokenised = sft_examples(word_tokenizer(), [demonstration("cough fever", "flu rest")], max_length_tokens=10)
    assert tokenised.examples == [SftExample(prompt_ids=[COUGH, FEVER, BREAK], completion_ids=[FLU, REST, EOS])]
    assert tokenised.num_too_long == 0


def test_both_completions_of_a_pair_begin_with_its_prefix():
    rows = [pair("cough", chosen="rest", rejected="flu rest", prefix="cold\n")]
    (example,) = dpo_examples(word_tokenizer(), rows, max_length_tokens=10).examples
    assert example.prompt_ids == [COUGH, BREAK]
    assert example.chosen_ids == [COLD, BREAK, REST, EOS]
    assert example.rejected_ids == [COLD, BREAK, FLU, REST, EOS]
    assert example.num_rest_tokens == 0


def test_steps_are_compared_without_an_end_and_without_the_rest_of_the_chosen_trace():
    rows = [pair("cough", prefix="cold\n", chosen="rest\n", rejected="flu rest\n", rest="fever")]
    (example,) = dpo_examples(word_tokenizer(), rows, max_length_tokens=10).examples
    assert example.chosen_ids == [COLD, BREAK, REST, BREAK, FEVER, EOS]
    assert example.rejected_ids == [COLD, BREAK, FLU, REST, BREAK]
    batch = dpo_batch([example], pad_token_id=0)
    # The prompt is 2 tokens, and the likelihood term takes the whole chosen trace.
    assert batch.completion_mask.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0]]
    assert batch.compared_mask.tolist() == [[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0]]
    assert batch.num_tokens == 6


def test_what_is_compared_stays_in_place_beside_longer_pairs():
    short = pair("cough", chosen="rest\n", rejected="flu\n", rest="fever")
    long = pair("cough cough cough", chosen="rest rest\n", rejected="flu flu flu\n", rest="fever fever")
    examples = dpo_examples(word_tokenizer(), [short, long], max_length_tokens=20).examples
    batch = dpo_batch(examples, pad_token_id=PAD)
    compared = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.compared_mask, strict=True)]
    assert compared == [[REST, BREAK], [REST, REST, BREAK], [FLU, BREAK], [FLU, FLU, FLU, BREAK]]


def test_a_demonstration_ends_even_if_its_text_ends_with_a_line_break():
    (example,) = sft_examples(word_tokenizer(), [demonstration("cough", "flu\n")], max_length_tokens=10).examples
    assert example.completion_ids == [FLU, BREAK, EOS]


def test_rows_that_are_too_long_are_dropped_and_counted():
    demonstrations = [demonstration("cough", "flu"), demonstration("cough", "flu rest")]
    tokenised = sft_examples(word_tokenizer(), demonstrations, max_length_tokens=4)
    assert [example.completion_ids for example in tokenised.examples] == [[FLU, EOS]]
    assert tokenised.num_too_long == 1


def test_a_pair_is_too_long_if_either_of_its_texts_is():
    pairs = [pair("cough", "flu", "flu rest"), pair("cough", "flu rest", "flu"), pair("cough", "flu", "cold")]
    tokenised = dpo_examples(word_tokenizer(), pairs, max_length_tokens=4)
    assert len(tokenised.examples) == 1
    assert tokenised.num_too_long == 2


def test_a_tokenizer_without_end_token_is_the_users_error():
    with pytest.raises(UserError, match="no end token"):
        sft_examples(word_tokenizer(eos_token=None), [demonstration("cough", "flu")], max_length_tokens=9)


def test_no_rows_give_no_examples():
    assert sft_examples(word_tokenizer(), [], max_length_tokens=9).examples == []


def test_the_loss_of_sft_is_taken_over_completions_alone():
    examples = [
        SftExample(prompt_ids=[COUGH, BREAK], completion_ids=[FLU, EOS]),
        SftExample(prompt_ids=[COUGH], completion_ids=[COLD, EOS]),
    ]
    batch = sft_batch(examples, pad_token_id=PAD)
    assert batch.input_ids.tolist() == [[COUGH, BREAK, FLU, EOS], [COUGH, COLD, EOS, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.completion_mask.tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]
    assert (batch.num_examples, batch.num_tokens) == (2, 4)


def test_a_batch_of_pairs_holds_the_chosen_rows_and_then_the_rejected_ones():
    example = DpoExample(
        question_id="q",
        prompt_ids=[COUGH],
        chosen_ids=[FLU, REST, EOS],
        rejected_ids=[COLD, EOS],
        reference_logps=(-2.0, -3.0),
    )
    batch = dpo_batch([example, example], pad_token_id=PAD)
    assert batch.input_ids.tolist() == [[COUGH, FLU, REST, EOS]] * 2 + [[COUGH, COLD, EOS, PAD]] * 2
    assert batch.completion_mask.tolist() == [[0, 1, 1, 1]] * 2 + [[0, 1, 1, 0]] * 2
    assert batch.reference_logps.tolist() == [[-2.0, -2.0], [-3.0, -3.0]]
    assert (batch.num_examples, batch.num_tokens) == (2, 6)


def test_an_epoch_takes_every_example_once_in_steps_of_equal_size():
    steps = plan_steps(list(range(103)), 10, seed=0, epoch=0)
    assert sorted(index for step in steps for index in step) == list(range(103))
    assert {len(step) for step in steps} == {10, 11}


def test_the_plan_depends_on_seed_and_epoch_alone():
    lengths = [7] * 64
    assert plan_steps(lengths, 8, seed=1, epoch=0) == plan_steps(lengths, 8, seed=1, epoch=0)
    assert plan_steps(lengths, 8, seed=1, epoch=0) != plan_steps(lengths, 8, seed=1, epoch=1)
    assert plan_steps(lengths, 8, seed=1, epoch=0) != plan_steps(lengths, 8, seed=2, epoch=0)


def test_examples_of_a_step_are_of_similar_length():
    lengths = [index % 100 for index in range(800)]
    steps = plan_steps(lengths, 8, seed=0, epoch=0)
    spread = [max(lengths[index] for index in step) - min(lengths[index] for index in step) for step in steps]
    assert max(spread) <= 20


def test_a_forward_pass_stays_below_its_tokens_with_padding():
    examples = [SftExample(prompt_ids=[COUGH] * (length - 1), completion_ids=[EOS]) for length in (9, 2, 3, 2, 20)]
    passes = forward_passes(examples, max_tokens=9)
    assert [[example.length_tokens for example in members] for members in passes] == [[2, 2, 3], [9], [20]]


def test_a_trained_tokenizer_writes_and_reads_back_any_text():
    tokenizer = train_tokenizer(["患者发热三天，伴咳嗽。", "患者咳嗽。"] * 5, vocab_size=300)
    text = "患者：fever 39℃\n答案是 A"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert 258 < len(tokenizer) <= 300
