"""An OpenAI-compatible endpoint that behaves as badly as a test has it."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-key"
USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}


class Handler(BaseHTTPRequestHandler):
    """Answers each request as the server's `script` has it, by the request's messages and how often they came; one with
    a wrong key, model or address, or without messages, as servers do."""

    server: "Server"
    messages: list[dict[str, str]]

    def do_POST(self) -> None:
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.reply(401, {"error": {"message": f"Incorrect API key: {self.headers['Authorization'].split()[1]}"}})
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.messages = body["messages"]
        if self.path != "/v1/chat/completions" or body["model"] != self.server.model:
            self.reply(404, {"error": {"message": f"no {body['model']} at {self.path}"}})
            return
        if not self.messages:
            self.reply(400, {"error": {"message": "messages are empty"}})
            return
        with self.server.lock:
            self.server.asked[json.dumps(self.messages)] += 1
            num_asked = self.server.asked[json.dumps(self.messages)]
        self.server.script(self, num_asked)

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def answer(self, text: str, finish_reason: str = "stop") -> None:
        with self.server.lock:
            self.server.num_answered += 1
        self.reply(200, completion(text, finish_reason))

    @property
    def number(self) -> int:
        """That of the question, "Which is it, number 7?", in the first message of the user."""
        return int(self.messages[1]["content"].partition("number ")[2].partition("?")[0])

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self, script: Callable[[Handler, int], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.model = "big"
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.num_answered = 0


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "big", "choices": [choice], "usage": USAGE}


Serve = Callable[[Callable[[Handler, int], None]], Server]


@contextmanager
def servers() -> Iterator[Serve]:
    """Starts servers, each with its script, and stops them all in the end."""
    started: list[Server] = []

    def start(script: Callable[[Handler, int], None]) -> Server:
        started.append(Server(script))
        threading.Thread(target=started[-1].serve_forever, args=(0.02,), daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()
