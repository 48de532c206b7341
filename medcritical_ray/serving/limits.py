"""What one request may ask for."""

from medcritical_ray.config import ServeConfig
from medcritical_ray.serving.refusals import Refused, bad_value

Prompt = str | list[str] | list[int] | list[list[int]] | None
"""Of a completion: one text, several, the tokens of one, or of several."""


def num_prompts(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def check_limits(limits: ServeConfig, *, param: str, max_tokens: int | None, num_texts: int) -> None:
    """Raises Refused, naming the field, if a request asks for more than the config allows."""
    if max_tokens is not None and max_tokens > limits.max_tokens:
        raise Refused(bad_value(param, f"{max_tokens} is too much: at most {limits.max_tokens} (serve.max_tokens)"))
    if num_texts > limits.max_texts:
        raise Refused(
            bad_value(
                "n", f"{num_texts} texts are too many for one request: at most {limits.max_texts} (serve.max_texts)"
            )
        )
