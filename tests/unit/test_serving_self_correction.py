"""A policy's answer, its check of it, and the response that both come to."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from medcritical_ray.prompts import correction_of_solve_prompt, correction_prompt, question_text, solve_prompt
from medcritical_ray.records import UnkeyedQuestion, lettered
from medcritical_ray.serving.correcting import events_of, self_correct
from medcritical_ray.serving.refusals import Refused, too_long

QUESTION = UnkeyedQuestion(id="q", stem="What helps?", options=lettered(["rest", "water"]))
CHINESE = UnkeyedQuestion(id="z", stem="哪种药物首选？", options=lettered(["阿司匹林", "青霉素"]))
WRONG = "Thought: look.\nStep 1: it is thirst.\nAnswer: rest (A)"
RIGHT = "Thought: look.\nStep 1: it is thirst.\nAnswer: water (B)"
REDONE = "Check: the answer is wrong: thirst needs water.\nAnswer: water (B)"


@pytest.mark.parametrize("question", [QUESTION, CHINESE])
@pytest.mark.parametrize("task", ["repair", "check"])
def test_a_prompt_to_solve_becomes_the_prompt_to_correct_that_the_run_would_make(question: UnkeyedQuestion, task: Any):
    assert correction_of_solve_prompt(solve_prompt(question), WRONG, task) == correction_prompt(question, WRONG, task)
    assert correction_of_solve_prompt(question_text(question), WRONG, task) == correction_prompt(question, WRONG, task)


class Request(SimpleNamespace):
    """A chat request as vLLM has it, as far as it matters here."""

    def model_copy(self, update: dict[str, Any]) -> "Request":
        return Request(**{**vars(self), **update})


class Policy:
    """Answers with given texts in turn, (text, finish reason), or refuses; remembers what it was asked."""

    def __init__(self, *texts: tuple[str, str] | Refused) -> None:
        self._texts = list(texts)
        self.asked: list[Request] = []

    async def __call__(self, request: Request) -> Any:
        self.asked.append(request)
        text = self._texts.pop(0)
        if isinstance(text, Refused):
            raise text
        return Response(*text)


class Response:
    def __init__(self, text: str, finish_reason: str) -> None:
        message = SimpleNamespace(role="assistant", content=text)
        self.choices = [SimpleNamespace(message=message, finish_reason=finish_reason)]
        self.usage = SimpleNamespace(prompt_tokens=10, completion_tokens=5)

    def model_dump(self) -> dict[str, Any]:
        choice = self.choices[0]
        return {
            "id": "chatcmpl-1",
            "created": 1,
            "model": "v0001",
            "system_fingerprint": None,
            "choices": [{"message": vars(choice.message), "finish_reason": choice.finish_reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }


def request(**fields: Any) -> Request:
    message = {"role": "user", "content": solve_prompt(QUESTION)}
    plain = {"n": 1, "stream": True, "max_tokens": None, "max_completion_tokens": None}
    return Request(**{"messages": [message], **plain, **fields})


def corrected(policy: Policy, **fields: Any) -> dict[str, Any]:
    return asyncio.run(self_correct(policy, request(**fields), answer_tokens=50, correction_tokens=60))


def test_a_corrected_answer_comes_with_the_way_to_it():
    policy = Policy((WRONG, "stop"), (REDONE, "stop"))
    response = corrected(policy)
    assert response["choices"][0]["message"]["content"] == RIGHT
    assert response["self_correction"] == {
        "first_answer": WRONG,
        "correction": REDONE,
        "outcome": "corrected",
        "first_wrong_step": 2,
    }
    assert response["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    assert policy.asked[1].messages == [{"role": "user", "content": correction_prompt(QUESTION, WRONG, "check")}]
    assert [(each.stream, each.max_tokens) for each in policy.asked] == [(False, 50), (False, 60)]


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        ([(WRONG, "stop"), ("Check: every step is right.", "stop")], "kept"),
        ([(WRONG, "stop"), ("I like it.", "stop")], "unreadable correction"),
        ([(WRONG, "stop"), (REDONE, "length")], "unreadable correction"),
        ([(WRONG, "stop"), Refused(too_long("messages", "9 tokens", answer_tokens=0, max_model_len=8))], "no room"),
        ([(WRONG, "length")], "unreadable answer"),
        ([("It is rest.", "stop")], "unreadable answer"),
    ],
)
def test_whatever_else_happens_the_first_answer_stays(texts: list[Any], outcome: str):
    response = corrected(Policy(*texts))
    assert response["choices"][0]["message"]["content"] == texts[0][0]
    assert response["self_correction"]["outcome"] == outcome


def test_a_client_may_ask_for_shorter_texts_but_not_for_longer_ones():
    policy = Policy((WRONG, "stop"), (REDONE, "stop"))
    corrected(policy, max_completion_tokens=55)
    assert [(each.max_tokens, each.max_completion_tokens) for each in policy.asked] == [(50, None), (55, None)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_what_cannot_be_corrected_is_refused_before_it_is_asked(fields: dict[str, Any], param: str):
    policy = Policy()
    with pytest.raises(Refused) as caught:
        corrected(policy, **fields)
    assert (caught.value.refusal.status, caught.value.refusal.param, policy.asked) == (400, param, [])


def test_a_text_in_parts_is_a_text():
    policy = Policy((WRONG, "stop"), (REDONE, "stop"))
    corrected(policy, messages=[{"role": "user", "content": [{"type": "text", "text": solve_prompt(QUESTION)}]}])
    assert policy.asked[1].messages[0]["content"] == correction_prompt(QUESTION, WRONG, "check")


def test_a_corrected_answer_is_streamed_in_two_chunks():
    first, last = events_of(corrected(Policy((WRONG, "stop"), (REDONE, "stop"))))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": RIGHT}
    assert (last["choices"][0]["finish_reason"], last["self_correction"]["first_answer"]) == ("stop", WRONG)
