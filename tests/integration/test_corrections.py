"""Corrections by a large model, from a server that misbehaves on purpose."""

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from correcting import ATTEMPTS, OTHER_WRONG, QUESTIONS, RIGHT, WRONG, correct, open_run
from endpoint_server import KEY, Handler, Serve, Server, completion, servers

from medcritical_ray.config import EndpointConfig
from medcritical_ray.corrections import format_keep
from medcritical_ray.errors import RunFailed, UserError
from medcritical_ray.opening import check_reviewer, make_reviewer
from medcritical_ray.prompts import correction_prompt
from medcritical_ray.records import Demonstration
from medcritical_ray.run.tables import iter_parts
from medcritical_ray.teaching.endpoint.budget import most_prompt_tokens
from medcritical_ray.teaching.endpoint.reviewer import EndpointReviewer, first_messages
from medcritical_ray.teaching.teachers import submission

PROMPTS = [correction_prompt(question.unkeyed(), WRONG, "repair") for question in QUESTIONS]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with pytest.MonkeyPatch.context() as patch, servers() as start:
        patch.setenv("OPENAI_API_KEY", KEY)
        yield start


def redo(handler: Handler) -> str:
    """A correction of either wrong attempt that counts."""
    return f"Check: step 2 is wrong: number {handler.number} flows.\nStep 2: it is water.\nAnswer: water (B)"


def answers(handler: Handler, num_asked: int) -> None:
    handler.answer(redo(handler))


def slow(handler: Handler) -> None:
    threading.Event().wait(1.5)
    handler.connection.close()


def told(handler: Handler, text: str) -> None:
    """The text until the model is told that it will not do."""
    handler.answer(text if len(handler.messages) == 2 else redo(handler))


WRONG_REDO = "Check: step 2 is wrong: no.\nStep 2: it is aspirin.\nAnswer: aspirin (C)"
TROUBLES: dict[int, Callable[[Handler], None]] = {
    0: lambda handler: handler.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}),
    1: lambda handler: handler.reply(500, {"error": {"message": "oops"}}),
    2: lambda handler: handler.connection.close(),
    3: slow,
    4: lambda handler: handler.reply(200, json.dumps(completion("cut")).encode()[:60]),
    5: lambda handler: handler.reply(200, b"<html>busy</html>"),
}
"""What goes wrong the first time, by the question's number."""
FATES: dict[int, Callable[[Handler], None]] = {
    6: lambda handler: handler.reply(400, {"error": {"message": "too long"}}),
    7: lambda handler: told(handler, WRONG_REDO),
    8: lambda handler: told(handler, "It is water."),
    9: lambda handler: handler.answer("", "length"),
    10: lambda handler: handler.answer(redo(handler).replace("flows", "is the answer key's")),
    11: lambda handler: handler.answer(WRONG_REDO),
}
"""What goes wrong every time, with 7 and 8 until they are told."""


def misbehave(handler: Handler, num_asked: int) -> None:
    act = FATES.get(handler.number) or (TROUBLES.get(handler.number) if num_asked == 1 else None)
    act(handler) if act else answers(handler, num_asked)


@pytest.fixture(scope="module")
def misbehaved(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Server, dict[str, Any]]:
    """A run whose endpoint gave every trouble, the server that did, and the result of the phase."""
    path, server = tmp_path_factory.mktemp("misbehaved"), serve(misbehave)
    price = {"big": {"input_per_million": 1.0, "output_per_million": 10.0}}
    return path, server, correct(path, server.server_port, max_revisions=1, prices=price)


def lessons(path: Path) -> list[tuple[str, str, str]]:
    """(question, task, response) of each demonstration, in their order on disk."""
    rows = iter_parts(path / "iterations/000/lessons", Demonstration)
    return [(row.question_id, row.task, row.response) for row in rows]


def test_every_mistake_is_corrected_or_dropped_with_its_reason_whatever_the_endpoint_does(
    misbehaved: tuple[Path, Server, dict[str, Any]],
):
    path, _, result = misbehaved
    repairs = [(question_id, response) for question_id, task, response in lessons(path) if task == "repair"]
    # In the order of the questions, however late the answers came.
    assert repairs == [
        (f"q{n}", f"Check: step 2 is wrong: number {n} flows.\nStep 2: it is water.\nAnswer: water (B)")
        for n in (0, 1, 2, 3, 4, 5, 7, 8)
    ]
    # The second mistake is handed in where the first was not corrected, and fares no better.
    assert result["dropped"] == {
        "attempt made before": 12,
        "mistake over the limit per question": 8,
        "endpoint": 2,
        "cut off": 2,
        "correction speaks of a given answer": 2,
        "correction misses the key": 1,
        "correction cannot be read": 1,  # it redoes the other mistake as it was
    }


def test_right_attempts_are_kept_without_asking_and_the_ledger_adds_up(
    misbehaved: tuple[Path, Server, dict[str, Any]],
):
    path, server, result = misbehaved
    assert [response for _, task, response in lessons(path) if task == "check"].count(format_keep()) == 12
    assert not any(f"Attempt:\n{RIGHT}" in asked for asked in map(first_prompt, server.asked))
    charges = result["teacher"]
    assert charges["calls"] == server.num_answered
    # Six at once, two when told; of each wrong attempt at 9 one empty text, and at 10 and 11 two texts.
    assert charges["calls"] == 6 + 2 * 2 + 2 * 1 + 2 * 2 * 2
    assert (charges["prompt_tokens"], charges["completion_tokens"]) == (30 * charges["calls"], 20 * charges["calls"])
    assert charges["cost"] == pytest.approx(charges["calls"] * (30 * 1.0 + 20 * 10.0) / 1e6)


def first_prompt(asked: str) -> str:
    return str(json.loads(asked)[1]["content"])


def test_the_model_is_shown_question_and_attempt_and_told_nothing_but_that_it_is_wrong(
    misbehaved: tuple[Path, Server, dict[str, Any]],
):
    server = misbehaved[1]
    prompts = [correction_prompt(each.unkeyed(), attempt, "repair") for each in QUESTIONS for attempt in ATTEMPTS]
    for messages in map(json.loads, server.asked):
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"][: len(messages)]
        assert messages[1]["content"] in prompts
        assert "water" not in messages[0]["content"]
    revisions = {first_prompt(asked): json.loads(asked)[3]["content"] for asked in server.asked if "assistant" in asked}
    assert revisions[PROMPTS[7]] == "That is wrong. Find the mistake and write all of it again, in the same form."
    assert revisions[PROMPTS[8]].startswith("That cannot be taken. Write all of it again")


def test_no_file_of_the_run_holds_the_key_of_the_endpoint(tmp_path: Path, serve: Serve):
    def refuse(handler: Handler, num_asked: int) -> None:
        handler.reply(401, {"error": {"message": f"{KEY} is no longer paid for"}})

    with pytest.raises(UserError, match=r"refuses the key in \$OPENAI_API_KEY \(401\): \(key\) is no longer paid for"):
        correct(tmp_path, serve(refuse).server_port)
    correct(tmp_path, serve(misbehave).server_port)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not any(KEY[:8].encode() in path.read_bytes() for path in files)


def test_a_killed_run_pays_for_nothing_twice(tmp_path: Path, serve: Serve):
    sixth_came, may_end = threading.Event(), threading.Event()

    def hold_the_sixth(handler: Handler, num_asked: int) -> None:
        if server.num_answered < 5:
            answers(handler, num_asked)
        else:
            sixth_came.set()
            may_end.wait(30)

    server = serve(hold_the_sixth)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=correct, args=(tmp_path, server.server_port), kwargs={"max_in_flight": 1})
    process.start()
    assert sixth_came.wait(30)
    process.kill()
    process.join()
    may_end.set()
    server.script = answers
    result = correct(tmp_path, server.server_port)
    assert sorted(server.asked.values()) == [1] * 11 + [2]  # the one that was under way
    assert result["teacher"]["calls"] == server.num_answered == 12
    # The last repair of the twelve is there, too, and a phase that is done asks for nothing.
    assert [question_id for question_id, task, _ in lessons(tmp_path) if task == "repair"][-1] == "q11"
    assert correct(tmp_path, server.server_port) == result
    assert server.num_answered == 12


def test_a_budget_holds_and_may_be_raised_for_what_comes_next(tmp_path: Path, serve: Serve):
    server = serve(answers)
    # Set aside is the most that a request may take: its prompt's bytes, and all that it may write. It takes 50.
    endpoint = EndpointConfig(base_url="http://127.0.0.1", model="big")
    most = most_prompt_tokens(first_messages(submission(QUESTIONS[0], WRONG, "repair"), endpoint)) + 100
    limit = {"max_tokens": 100, "max_tokens_spent": most + 220}
    result = correct(tmp_path, server.server_port, **limit)
    charges = result["teacher"]
    assert 0 < charges["calls"] < 12
    assert charges["prompt_tokens"] + charges["completion_tokens"] <= limit["max_tokens_spent"]
    assert charges["cost"] is None
    assert result["dropped"]["budget"] > 0
    game = open_run(tmp_path, server.server_port, max_tokens=100, max_tokens_spent=100_000)
    with game.run:
        handed_in = [submission(question, WRONG, "repair") for question in QUESTIONS]
        assert all(written.fault is None for written in game.reviewer.corrections(handed_in, 1))
    # What stage 1 paid for is not charged to the iteration.
    assert game.reviewer.charges(0, None).calls + game.reviewer.charges(1, None).calls == server.num_answered == 12


def test_the_same_attempt_twice_is_asked_for_once(tmp_path: Path, serve: Serve):
    server = serve(answers)
    game = open_run(tmp_path, server.server_port)
    with game.run:
        handed_in = [submission(QUESTIONS[3], attempt, "repair") for attempt in (WRONG, OTHER_WRONG, WRONG, WRONG)]
        written = game.reviewer.corrections(handed_in, 1)
    assert [each.fault for each in written] == [None] * 4
    assert (sum(server.asked.values()), game.reviewer.charges(1, None).calls) == (2, 2)


def test_an_endpoint_that_answers_nothing_any_more_ends_the_phase_and_the_run_goes_on_once_it_is_back(
    tmp_path: Path, serve: Serve
):
    def out_of_money(handler: Handler, num_asked: int) -> None:
        if server.num_answered:
            handler.reply(402, {"error": {"message": "no money"}})
        else:
            answers(handler, num_asked)

    server = serve(out_of_money)
    with pytest.raises(RunFailed, match=r"left 10 requests in a row unanswered, the last: 402: no money; resume with"):
        correct(tmp_path, server.server_port, max_in_flight=1)
    assert server.asked.total() == 11
    server.script = answers
    assert correct(tmp_path, server.server_port)["teacher"]["calls"] == server.num_answered == 12


def test_a_trained_model_gets_the_prompt_of_the_student_alone(tmp_path: Path, serve: Serve):
    prompts: list[Any] = []

    def answer(handler: Handler, num_asked: int) -> None:
        prompts.append(handler.messages)
        handler.answer("Check: step 2 is wrong: no.\nStep 2: it is water.\nAnswer: water (B)")

    correct(tmp_path, serve(answer).server_port, explain_form=False, max_in_flight=1)
    assert prompts == [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


def test_an_endpoint_is_needed_as_long_as_it_is_to_correct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    game = open_run(tmp_path, port=1)
    assert isinstance(make_reviewer(game.config, game.run, game.teacher, game.progress), EndpointReviewer)
    with game.run:
        with pytest.raises(UserError, match=r"no answer from http://127\.0\.0\.1:1/v1"):
            check_reviewer(game.config, game.run)
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UserError, match=r"^\$OPENAI_API_KEY is not set"):
            check_reviewer(game.config)
        game.run.mark_done(0, "correct", {})
        check_reviewer(game.config, game.run)
        in_stage_two = game.config.model_copy(
            update={"correct": game.config.correct.model_copy(update={"policy": "teacher"})}
        )
        with pytest.raises(UserError, match=r"^\$OPENAI_API_KEY is not set"):
            check_reviewer(in_stage_two, game.run)


def test_without_being_told_so_a_run_asks_no_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    game = open_run(tmp_path, port=1)
    with game.run:
        teacher = game.config.teacher.model_copy(update={"corrections": "rules"})
        config = game.config.model_copy(update={"teacher": teacher})
        check_reviewer(config, game.run)
        assert make_reviewer(config, game.run, game.teacher, game.progress) is game.teacher
