"""Distillation against a server that misbehaves on purpose: every question ends, and nothing is paid for twice."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import KEY, Handler, Serve, Server, completion, servers

from jobs.cli import main
from medcritical_ray.errors import UserError
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered
from medcritical_ray.run.lock import RunLock
from medcritical_ray.teaching.endpoint.client import retry_after_s

STEMS = [f"Which is it, number {n}?" for n in range(12)]
QUESTIONS = [
    Question(id=f"q{n}", source="test", stem=stem, options=lettered(["rest", "water", "aspirin"]), key="B")
    for n, stem in enumerate(STEMS)
]
RIGHT = "Thought: think.\nStep 1: it is water.\nAnswer: water (B)"
WRONG = "Thought: think.\nStep 1: it is rest.\nAnswer: rest (A)"

Answer = Callable[["Handler"], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_questions(tmp_path / "q.jsonl", QUESTIONS)
    file = tmp_path / "my.toml"
    file.write_text(
        f"""
        [questions]
        kind = "file"
        path = "{tmp_path / "q.jsonl"}"
        num_train = 10
        num_dev = 1
        num_test = 1
        [student.fresh]
        [teacher]
        kind = "explanations"
        num_questions = 10
        [teacher.endpoint]
        base_url = "http://127.0.0.1:1/v1"
        model = "big"
        timeout_s = 1.0
        max_retries = 2
        max_in_flight = 4
        """
    )
    return file


def distill(config: Path, server: Server | None, *overrides: str) -> int:
    address = [f"teacher.endpoint.base_url=http://127.0.0.1:{server.server_port}/v1"] if server else []
    sets = [word for override in [*address, *overrides] for word in ("--set", override)]
    return main(["distill", "--config", str(config), "--out", str(config.parent / "out"), *sets])


def outcome(config: Path) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """Templates and reasons by question, and the ledger."""
    out = config.parent / "out"
    rows = {
        name: [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        for name in ("templates", "rejects")
    }
    templates = {row["question_id"]: row["template"] for row in rows["templates"]}
    reasons = {row["question_id"]: row["reason"] for row in rows["rejects"]}
    return templates, reasons, json.loads((out / "ledger.json").read_text())


def slow(handler: Handler) -> None:
    time.sleep(1.5)
    handler.connection.close()


TROUBLES: dict[int, Answer] = {
    0: lambda handler: handler.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}),
    1: lambda handler: handler.reply(500, {"error": {"message": "oops"}}),
    2: lambda handler: handler.connection.close(),
    3: slow,
    4: lambda handler: handler.reply(200, json.dumps(completion(RIGHT)).encode()[:60]),
    5: lambda handler: handler.reply(200, {**completion(RIGHT), "choices": []}),
}
"""What goes wrong the first time, by the question's number modulo ten."""
FATES: dict[int, Answer] = {
    6: lambda handler: handler.reply(200, b"<html>busy</html>"),
    7: lambda handler: handler.reply(400, {"error": {"message": "too long"}}),
    8: lambda handler: handler.answer(WRONG if len(handler.messages) < 4 else RIGHT),
    9: lambda handler: handler.answer(RIGHT, "length"),
}
"""What goes wrong every time; number 8 answers wrongly until it is told so."""


def misbehave(handler: Handler, num_asked: int) -> None:
    number = handler.number % 10
    act = FATES.get(number) or (TROUBLES.get(number) if num_asked == 1 else None)
    act(handler) if act else handler.answer(RIGHT)


def test_every_question_ends_as_a_template_or_a_reject_with_its_reason(
    config: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
):
    server = serve(misbehave)
    assert distill(config, server) == 0
    templates, reasons, costs = outcome(config)
    assert len(templates) + len(reasons) == 10
    assert set(templates.values()) <= {RIGHT}
    troubles = {int(question_id[1:]) % 10: reason for question_id, reason in reasons.items()}
    assert set(troubles) <= {6, 7, 9}
    for trouble, reason in ((7, "endpoint: 400: too long"), (9, "cut off")):
        assert troubles.get(trouble, reason) == reason
    assert troubles.get(6, "endpoint: ").startswith("endpoint: ")
    assert costs["calls"] == server.num_answered
    assert costs["prompt_tokens"] == 30 * costs["calls"]
    assert costs["cost"] is None
    assert "cost unknown" in capsys.readouterr().out


def test_what_was_answered_is_never_asked_again(config: Path, serve: Serve):
    def dies_on_the_way(handler: Handler, num_asked: int) -> None:
        if server.num_answered < 4:
            handler.answer(RIGHT)
        else:
            handler.reply(401, {"error": {"message": f"{KEY} is no longer paid for"}})

    server = serve(dies_on_the_way)
    assert distill(config, server, "teacher.endpoint.max_in_flight=1") == 2
    assert not (config.parent / "out" / "templates.jsonl").exists()
    assert json.loads((config.parent / "out" / "ledger.json").read_text())["calls"] == 4
    server.script = lambda handler, num_asked: handler.answer(RIGHT)
    assert distill(config, server) == 0
    templates, reasons, costs = outcome(config)
    assert (len(templates), reasons) == (10, {})
    assert costs["calls"] == server.num_answered == 10
    assert distill(config, server) == 0
    assert server.num_answered == 10


def test_a_wrong_key_fails_before_any_work_and_is_not_repeated(
    config: Path,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key")
    server = serve(misbehave)
    assert distill(config, server) == 2
    message = capsys.readouterr().err
    assert "refuses the key in $OPENAI_API_KEY (401): Incorrect API key: (key)" in message
    assert "sk-wrong" not in message
    assert server.num_answered == 0


def test_a_wrong_address_or_model_fails_before_any_work_with_the_server_s_own_message(
    config: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
):
    server = serve(misbehave)
    assert distill(config, server, "teacher.endpoint.model=bgi") == 2
    assert "has no bgi (teacher.endpoint.model) to chat with (404): no bgi at /v1/chat/completions" in error_of(capsys)
    assert distill(config, None, f"teacher.endpoint.base_url=http://127.0.0.1:{server.server_port}") == 2
    assert error_of(capsys).endswith("(404): no big at /chat/completions\n")
    assert server.asked.total() == 0
    assert not (config.parent / "out" / "ledger.json").exists()


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def test_a_model_that_goes_on_the_way_ends_the_work_and_no_question_is_rejected_for_it(
    config: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
):
    def taken_down(handler: Handler, num_asked: int) -> None:
        if server.num_answered < 4:
            handler.answer(RIGHT)
        else:
            handler.reply(404, {"error": {"message": "the model was taken down"}})

    server = serve(taken_down)
    assert distill(config, server, "teacher.endpoint.max_in_flight=1") == 2
    assert error_of(capsys).endswith("(404): the model was taken down\n")
    assert server.asked.total() == 5


def test_an_endpoint_that_is_not_there_fails_before_any_work(config: Path, capsys: pytest.CaptureFixture[str]):
    assert distill(config, None) == 2
    assert "no answer from http://127.0.0.1:1/v1 (teacher.endpoint.base_url)" in capsys.readouterr().err


def test_the_budget_stops_before_it_is_exceeded(config: Path, serve: Serve):
    server = serve(lambda handler, num_asked: handler.answer(RIGHT))
    # A request may take some 900 tokens: its prompt's bytes, and the most that it may write. It takes 50.
    limit = ["teacher.endpoint.max_tokens=100", "teacher.endpoint.max_tokens_spent=1100"]
    assert distill(config, server, *limit) == 0
    templates, reasons, costs = outcome(config)
    assert 0 < len(templates) < 10
    assert {reason.partition(":")[0] for reason in reasons.values()} == {"budget"}
    assert 0 < costs["prompt_tokens"] + costs["completion_tokens"] <= 1100
    assert distill(config, server, limit[0]) == 0
    assert server.num_answered == 10


def test_a_price_table_without_the_model_leaves_the_cost_unknown(
    config: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
):
    server = serve(lambda handler, num_asked: handler.answer(RIGHT))
    price = "teacher.endpoint.prices.other={input_per_million=1.0, output_per_million=10.0}"
    assert distill(config, server, price) == 0
    assert outcome(config)[2]["cost"] is None
    assert "cost unknown" in capsys.readouterr().out


def test_a_budget_of_money_wants_the_prices_of_all_that_was_paid_for(
    config: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
):
    assert distill(config, serve(lambda handler, num_asked: handler.answer(RIGHT))) == 0
    server = serve(lambda handler, num_asked: handler.answer(RIGHT))
    server.model = "new"
    price = "teacher.endpoint.prices.new={input_per_million=1.0, output_per_million=10.0}"
    assert distill(config, server, "teacher.endpoint.model=new", price, "teacher.endpoint.max_cost=1.0") == 2
    assert "max_cost = 1 needs the price of big, too" in error_of(capsys)
    assert server.asked.total() == 0


def test_a_price_makes_the_cost_known(config: Path, serve: Serve):
    server = serve(lambda handler, num_asked: handler.answer(RIGHT))
    price = "teacher.endpoint.prices.big={input_per_million=1.0, output_per_million=10.0}"
    assert distill(config, server, price, "teacher.endpoint.max_cost=1.0") == 0
    assert outcome(config)[2]["cost"] == pytest.approx(10 * (30 * 1.0 + 20 * 10.0) / 1e6)


def test_what_was_distilled_is_taught(config: Path, serve: Serve):
    from medcritical_ray.config_files import load_config
    from medcritical_ray.teaching.configured import make_teacher

    assert distill(config, serve(lambda handler, num_asked: handler.answer(RIGHT))) == 0
    overrides = ["teacher.kind=distilled", f"teacher.path={config.parent / 'out'}"]
    teacher = make_teacher(load_config(config, overrides), QUESTIONS)
    templates = outcome(config)[0]
    assert [teacher.template(question.unkeyed()) for question in QUESTIONS if question.id in templates] == [RIGHT] * 10


def test_an_answer_that_trickles_in_for_ever_ends_with_the_time_limit(config: Path, serve: Serve):
    def trickle(handler: Handler, num_asked: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            for _ in range(12):
                handler.wfile.write(b" ")
                time.sleep(0.25)

    limits = ["teacher.num_questions=1", "teacher.endpoint.max_retries=0"]
    assert distill(config, serve(trickle), *limits) == 0
    assert list(outcome(config)[1].values()) == ["endpoint: no answer within teacher.endpoint.timeout_s = 1 s"]


def test_a_server_that_asks_for_more_patience_than_there_is_is_left_alone(config: Path, serve: Serve):
    def later(handler: Handler, num_asked: int) -> None:
        handler.reply(429, {"error": {"message": "tomorrow"}}, {"Retry-After": "86400"})

    server = serve(later)
    assert distill(config, server, "teacher.num_questions=1") == 0
    assert list(outcome(config)[1].values()) == ["endpoint: 429: tomorrow; asks to wait 86,400 s, more than 600 s"]
    assert server.asked.total() == 1


def test_who_waits_to_ask_again_finds_that_all_is_over(config: Path, serve: Serve):
    def script(handler: Handler, num_asked: int) -> None:
        if handler.number == first:
            handler.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})
        else:
            time.sleep(0.2)
            handler.reply(401, {"error": {"message": "no longer paid for"}})

    def begin(handler: Handler, num_asked: int) -> None:
        nonlocal first
        first, server.script = handler.number, script
        script(handler, num_asked)

    first = -1
    server = serve(begin)
    assert distill(config, server, "teacher.endpoint.max_in_flight=2") == 2
    assert sorted(server.asked.values()) == [1, 1]


def test_requests_that_are_refused_one_by_one_are_no_sign_that_the_endpoint_is_gone(config: Path, serve: Serve):
    server = serve(lambda handler, num_asked: handler.reply(400, {"error": {"message": "filtered"}}))
    assert distill(config, server) == 0
    assert list(outcome(config)[1].values()) == ["endpoint: 400: filtered"] * 10


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 7}, "unknown"])
def test_an_answer_that_does_not_tell_its_tokens_counts_as_all_that_was_set_aside(
    config: Path, serve: Serve, usage: Any
):
    server = serve(lambda handler, num_asked: handler.reply(200, {**completion(RIGHT), "usage": usage}))
    assert distill(config, server, "teacher.num_questions=1", "teacher.endpoint.max_tokens=100") == 0
    templates, _, costs = outcome(config)
    assert list(templates.values()) == [RIGHT]
    assert costs["completion_tokens"] == 100
    assert costs["prompt_tokens"] > 100


def test_templates_are_written_while_nobody_else_may_work_there(
    config: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    def write(directory: Path, results: Any) -> None:
        with pytest.raises(UserError, match="is being worked on"):
            RunLock(directory / ".lock")
        written.extend(results)

    written: list[Any] = []
    monkeypatch.setattr("medcritical_ray.teaching.distilled.write_distilled", write)
    assert distill(config, serve(lambda handler, num_asked: handler.answer(RIGHT))) == 0
    assert len(written) == 10


@pytest.mark.parametrize(("header", "seconds"), [("2", 2), ("0.5", 0.5), ("-1", 0), ("", 0), ("soon", 0)])
def test_a_retry_after_is_read_as_seconds(header: str, seconds: float):
    assert retry_after_s(header) == seconds


def test_a_retry_after_is_read_as_a_date():
    assert 58 < retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) <= 60


def test_two_processes_do_not_spend_one_budget_twice(config: Path, capsys: pytest.CaptureFixture[str], serve: Serve):
    server = serve(misbehave)
    (config.parent / "out").mkdir()
    with closing(RunLock(config.parent / "out" / ".lock")):
        assert distill(config, server) == 2
    assert "is being worked on by process" in error_of(capsys)
    assert server.asked.total() == 0


def test_a_place_that_cannot_hold_templates_is_refused_at_once(config: Path, capsys: pytest.CaptureFixture[str]):
    (config.parent / "out").write_text("")
    assert distill(config, None) == 2
    assert "is a file: must be a directory" in capsys.readouterr().err
