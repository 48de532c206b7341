"""The clinic's student: its tokenizer and its architecture."""

import random
from collections.abc import Iterator
from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from medcritical_ray.clinic.corpus import NO_REASON, documents
from medcritical_ray.clinic.exam import ASKS_BY_DIFFICULTY, make_questions
from medcritical_ray.clinic.teacher import ClinicTeacher
from medcritical_ray.clinic.world import WEIGHTS_KG, World
from medcritical_ray.config import FreshStudentConfig
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import LETTERS
from medcritical_ray.training.small_models import small_model

MAX_LENGTH_TOKENS = 512


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
    """A student with random weights: Qwen2 in small, a million parameters."""
    size = FreshStudentConfig(hidden_size=128, num_layers=4, num_heads=4, intermediate_size=384)
    return small_model(size, vocab_size=vocab_size, max_length_tokens=MAX_LENGTH_TOKENS, pad_token_id=0, eos_token_id=1)


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
