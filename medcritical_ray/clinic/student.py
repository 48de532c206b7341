"""The clinic's student: its tokenizer, its architecture, and where its base weights lie."""

import random
from collections.abc import Iterator
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from medcritical_ray.clinic.corpus import documents
from medcritical_ray.clinic.exam import ASKS_BY_DIFFICULTY, make_questions
from medcritical_ray.clinic.reasoning import NO_REASON
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import WEIGHTS_KG, World
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import LETTERS

MAX_LENGTH_TOKENS = 512
ROPE_THETA = 1_000_000.0
"""Base of the rotary frequencies: of a head's 16, the few fast ones tell positions, and the many slow ones leave room
to match tokens wherever they stand. With 10,000, a student made much as below looked up 27 % of options after 500
steps; with this, 97 % (docs/results.md)."""

_SLOW = 0.006
"""Radians per token below which a rotary frequency counts as slow: within a prompt, it turns by less than a right angle
or so."""


def base_student_dir() -> Path:
    """The directory of the base weights that come with the package."""
    with as_file(files(__package__).joinpath("base_student")) as path:
        return path


def build_tokenizer(world: World, texts: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of `texts`, in which each name of the world is one token, and so are a dose
    and a letter in brackets: what is looked up is one token, and its letter the next.

    A token carries the space before it, so that decoding gives back the text exactly.
    """
    splitter = pre_tokenizers.Split(Regex(_token_pattern(world)), behavior="isolated")
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    words |= {prefix + term for term in world.terms() for prefix in ("", " ")}
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH_TOKENS,
    )


def sample_texts(world: World, seed: int) -> list[str]:
    """Texts that hold every word the clinic can say: documents, exam papers, traces and corrections of all kinds."""
    texts = list(islice(documents(world, seed, num_drills=0), 5000))
    teacher, rng = ClinicTeacher(world), random.Random(f"samples {seed}")
    for difficulty in ASKS_BY_DIFFICULTY:
        for question in make_questions(world, "train", 500, seed=seed, difficulty=difficulty):
            unkeyed = question.unkeyed()
            attempts = (teacher.template(unkeyed), teacher.mistake(unkeyed, rng))
            for attempt in filter(None, attempts):
                corrections = (teacher.correction(unkeyed, attempt) or "", f"Check: the answer is wrong: {NO_REASON}")
                texts += [attempt, *corrections]
                texts += [correction_prompt(unkeyed, attempt, task) + "\n" for task in ("repair", "check")]
            texts.append(solve_prompt(unkeyed) + "\n")
    return [*texts, *_numbers(world)]


def new_student(vocab_size: int) -> Qwen2ForCausalLM:
    """A student with random weights but for an induction head: see `_look_back` and `_copy_what_followed`.

    Qwen2 in small: a million parameters, tied embeddings, heads of the 32 dimensions that vLLM's CPU attention takes.
    """
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=0.08,  # about 1 / sqrt(128); the usual 0.02 suits models ten times as wide
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = Qwen2ForCausalLM(config)
    _quieten(model)
    head_dim = config.hidden_size // config.num_attention_heads
    basis = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size))[0]
    token, token_before, copied = basis.split(head_dim)[:3]
    _look_back(model.model.layers[0].self_attn, token, token_before)
    _copy_what_followed(model.model.layers[1].self_attn, token, token_before, copied)
    return model


@torch.no_grad()
def _look_back(attention: Qwen2Attention, token: Tensor, token_before: Tensor) -> None:
    """Has the first head of the first layer bring to each position what token stands before it.

    The first half of an induction head, the pair of heads that copies what followed a word before (arXiv 2209.11895): a
    student that had to find both halves at once looked up 29 % after 72,000 documents, where chance is 20 %
    (docs/results.md). The head attends by its biases alone, whatever the tokens are: under rotary positions, a query
    bias at angle 0 and a key bias at angle f, for every frequency f, match best at a distance of one token. `token` and
    `token_before` (each of shape head_dim, hidden_size) name the directions that it reads from and writes to.
    """
    head_dim = len(token)
    frequencies = _frequencies(head_dim)
    attention.q_proj.weight[:head_dim] = 0
    attention.k_proj.weight[:head_dim] = 0
    attention.q_proj.bias[:head_dim] = 8.0 * torch.cat([torch.ones(head_dim // 2), torch.zeros(head_dim // 2)])
    attention.k_proj.bias[:head_dim] = 8.0 * torch.cat([frequencies.cos(), frequencies.sin()])
    attention.v_proj.weight[:head_dim] = token
    attention.o_proj.weight[:, :head_dim] = 0.16 * token_before.T  # about as large as the embeddings are there


@torch.no_grad()
def _copy_what_followed(attention: Qwen2Attention, token: Tensor, token_before: Tensor, copied: Tensor) -> None:
    """Has the first head of the second layer attend where the token before is the present one, and copy what is there.

    The second half of the induction head. It matches tokens in the dimensions of slow rotary frequencies alone, which a
    distance turns little. Training sharpens it within a thousand steps.
    """
    head_dim = len(token)
    is_slow = (_frequencies(head_dim) < _SLOW).repeat(2)[:, None]
    attention.q_proj.weight[:head_dim] = 3.5 * token * is_slow
    attention.k_proj.weight[:head_dim] = token_before * is_slow
    attention.v_proj.weight[:head_dim] = copied
    attention.o_proj.weight[:, :head_dim] = 0.5 * copied.T


def _frequencies(head_dim: int) -> Tensor:
    """Of the rotary positions, in radians per token: shape (head_dim / 2), fastest first."""
    return ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)


@torch.no_grad()
def _quieten(model: Qwen2ForCausalLM, factor: float = 0.3) -> None:
    """Scales down what layers add to the residual stream at first, about 1 / sqrt(8) for eight additions (as in GPT-2),
    so that the embeddings, which copying needs, are not drowned."""
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= factor
        layer.mlp.down_proj.weight *= factor


def _numbers(world: World) -> Iterator[str]:
    """Every number of a step, of an option, and every dose that may be right or near: each a token of its own."""
    units = {treatment.unit for treatment in world.treatments.values()}
    yield "".join(f" ({letter})" for letter in LETTERS)
    yield "".join(f"Step {number}:" for number in range(1, 10))
    for per_kg in {treatment.dose_per_kg for treatment in world.treatments.values()}:
        amounts = [per_kg, *(per_kg * weight for weight in range(min(WEIGHTS_KG) - 10, max(WEIGHTS_KG) + 11, 10))]
        yield "".join(f" {amount} {unit}" for amount in amounts for unit in units)
        yield "\n".join(f"{amount} {unit}" for amount in amounts for unit in units)


def _token_pattern(world: World) -> str:
    terms = sorted(world.terms(), key=len, reverse=True)
    units = "|".join(sorted({treatment.unit for treatment in world.treatments.values()}))
    return rf" ?(?:{'|'.join(terms)})\b| \([A-J]\)| ?\d+ (?:{units})\b| ?\d+| ?[A-Za-z]+| ?[^\w\s]|\n"
