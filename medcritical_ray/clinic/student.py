"""The clinic's student: its tokenizer, its architecture, and where its base weights lie."""

from importlib.resources import as_file, files
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config

from medcritical_ray.clinic.world import World

MAX_LENGTH_TOKENS = 256


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
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=MAX_LENGTH_TOKENS,
    )


def student_config(vocab_size: int) -> Qwen2Config:
    """Qwen2 in small: 1.1 M parameters, tied embeddings, heads of the 32 dimensions that vLLM's CPU attention takes."""
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )


def _token_pattern(world: World) -> str:
    terms = sorted(world.terms(), key=len, reverse=True)
    units = "|".join(sorted({treatment.unit for treatment in world.treatments.values()}))
    return rf" ?(?:{'|'.join(terms)})\b| \([A-J]\)| ?\d+ (?:{units})\b| ?\d+| ?[A-Za-z]+| ?[^\w\s]|\n"
