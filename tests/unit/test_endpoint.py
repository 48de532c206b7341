"""What is asked of an endpoint, and what is told of it, without one; tests/integration/test_distill.py has a server."""

import asyncio

import pytest

from medcritical_ray import opening
from medcritical_ray.config import Config, EndpointConfig
from medcritical_ray.corrections import format_keep
from medcritical_ray.records import Question, lettered
from medcritical_ray.teaching.endpoint.access import without_key
from medcritical_ray.teaching.endpoint.asking import ask_until_it_counts
from medcritical_ray.teaching.endpoint.client import EndpointClient, Messages, in_bulk
from medcritical_ray.teaching.endpoint.responses import Response
from medcritical_ray.teaching.endpoint.reviewer import corrected
from medcritical_ray.teaching.reviews import Written
from medcritical_ray.teaching.teachers import fault_of_template, submission

QUESTION = Question(id="q", source="hand", stem="Which?", options=lettered(["rest", "water"]), key="B")
ENDPOINT = EndpointConfig(base_url="http://big.example/v1", model="big")


class Model(EndpointClient):
    """Answers with the texts in their order, and keeps what it was asked last."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.messages: Messages = []

    async def ask(self, messages: Messages) -> Response:
        self.messages = messages
        return Response(model="big", text=self.texts.pop(0), finished=True, prompt_tokens=3, completion_tokens=2)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("rest (A)", "That is wrong. Find the mistake and write all of it again, in the same form."),
        ("B", "That cannot be taken. Write all of it again, in the form asked for and in no other."),
        ("I do not know", "That cannot be taken. Write all of it again, in the form asked for and in no other."),
    ],
)
def test_who_answers_rightly_without_the_options_text_is_not_told_that_it_is_wrong(answer: str, told: str):
    trace = "Thought: think.\nStep 1: it flows.\nAnswer: "
    model = Model(trace + answer, trace + "water (B)")
    asking = ask_until_it_counts(model, [], lambda text: fault_of_template(QUESTION, text), max_revisions=1)
    assert asyncio.run(asking).fault is None
    assert model.messages[-1]["content"] == told


@pytest.mark.parametrize("answer", ["B", "water (B)"])
def test_a_right_attempt_is_kept_and_nobody_is_asked(answer: str):
    handed_in = submission(QUESTION, f"Step 1: it flows.\nAnswer: {answer}", "check")
    written = asyncio.run(corrected(Model(), handed_in, ENDPOINT))
    assert written == Written(text=format_keep(), fault=None, num_asked=0)


def test_after_an_error_nothing_more_is_begun_and_what_is_under_way_is_finished():
    begun: list[int] = []
    finished: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise RuntimeError("no")
        await asyncio.sleep(0)
        finished.append(item)

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(in_bulk(range(9), work, num_workers=2, advance=lambda: None))
    assert (begun, finished) == ([0, 1], [0])


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("sk-proj-0123456789", "Incorrect key: sk-proj-0123456789.", "Incorrect key: (key)"),
        ("sk-proj-0123456789", "Incorrect key: sk-proj-01…", "Incorrect key: (key)"),
        ("sk-proj-0123456789", "Incorrect key: sk-pr***6789", "Incorrect key: (key)"),
        ("sk-proj-0123456789", "the sk-project knows no sk-promise", "the sk-project knows no sk-promise"),
        ("model-key", "the model is busy", "the model is busy"),
        ("x", "x exceeds the context of 'x'", "(key) exceeds the context of (key)"),
        ("EMPTY", "the key EMPTY is none; nor is EMPT", "the key (key) is none; nor is EMPT"),
    ],
)
def test_a_key_is_masked_where_it_is_quoted_and_no_word_that_merely_begins_like_it(
    monkeypatch: pytest.MonkeyPatch, key: str, text: str, told: str
):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert without_key(ENDPOINT, text) == told


def test_runs_that_ask_the_same_endpoint_try_it_once(monkeypatch: pytest.MonkeyPatch):
    def config(model: str, corrections: str = "endpoint", **endpoint: float) -> Config:
        asked = {"base_url": "http://big.example/v1", "model": model, **endpoint}
        return Config.model_validate({"teacher": {"corrections": corrections, "endpoint": asked}})

    tried: list[EndpointConfig] = []
    monkeypatch.setattr("medcritical_ray.teaching.endpoint.access.check_endpoint", tried.append)
    configs = [config("big"), config("big", temperature=1.0), config("small"), config("unasked", "rules")]
    opening.check_reviewers((each, None) for each in configs)
    assert [each.model for each in tried] == ["big", "small"]
