"""A proxy before an object store, which is slow or fails as a test has it."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from object_store import ObjectStore

_OF_A_CONNECTION = ("transfer-encoding", "connection", "expect")
"""Headers that speak of one connection, and are not handed on."""

Fault = Literal["none", "slow", "error", "cut", "silent"]
"""An answer only after `delay_s`; status 500; a connection that is closed within the answer; none at all."""


class FaultyStore:
    """The store as it is seen through the proxy at `address`, whose behaviour is `fault`, for requests whose path has
    `where` in it. `num_faults` counts the requests that met with it."""

    def __init__(self, store: ObjectStore, address: str) -> None:
        self.store = store
        self.address = address
        self.fault: Fault = "none"
        self.where = ""
        self.delay_s = 0.5
        self.num_faults = 0

    def uri(self, path: str) -> str:
        return f"s3://{self.store.bucket}/{path}?endpoint_override={self.address}&region=us-east-1"

    def meets_fault(self, path: str) -> Fault:
        if self.fault == "none" or self.where not in path:
            return "none"
        self.num_faults += 1
        return self.fault


@contextmanager
def faulty(store: ObjectStore) -> Iterator[FaultyStore]:
    """The proxy runs in threads of this process, and ends with the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        server.daemon_threads = True
        server.block_on_close = False  # those that are silent
        server.proxied = FaultyStore(store, f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.proxied  # type: ignore[attr-defined]
        server.proxied.fault = "none"  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def _forward(self) -> None:
        proxied: FaultyStore = self.server.proxied
        body = self._body()
        fault = proxied.meets_fault(self.path)
        if fault == "slow":
            time.sleep(proxied.delay_s)
        if fault == "error":
            self.send_error(500)
            return
        if fault == "silent":
            while proxied.fault == "silent":
                time.sleep(0.05)
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(urlsplit(proxied.store.address).netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_A_CONNECTION}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked may have given up
            self._answer(answer, content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.close_connection = True

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None:
            return self.rfile.read(int(length))
        content = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815  # as http.server calls them

    def log_message(self, *_: object) -> None:
        pass
