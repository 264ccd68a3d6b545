"""A subscriber's sink: a small HTTP server that answers as a test says, and keeps what it got."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str]]
OK: Reply = (204, {})


@dataclass(frozen=True)
class Got:
    """A POST: when it came (Unix seconds), how it was answered, its headers in lower case."""

    at: float
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Sink:
    """``answer`` is asked for each POST; ``shakes`` are the headers of each OPTIONS."""

    host: str = "127.0.0.1"
    answer: Callable[[Got], Reply] = lambda _got: OK
    handshake: Reply = (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "*"})
    got: list[Got] = field(default_factory=list)
    shakes: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/huashi?from=river"

    def taken(self, case: str | None = None) -> list[Got]:
        """What was answered with a 2xx, of one case or of all."""
        return [
            got
            for got in list(self.got)
            if 200 <= got.status < 300 and case in (None, got.event["subject"])
        ]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_OPTIONS(self) -> None:
                sink.shakes.append(self._headers())
                self._reply(*sink.handshake)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                at = time.time()
                got = Got(at, self._headers(), body)
                status, headers = sink.answer(got)
                sink.got.append(Got(at, got.headers, body, status))
                self._reply(status, headers)

            def _headers(self) -> dict[str, str]:
                return {name.lower(): value for name, value in self.headers.items()}

            def _reply(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler


@contextmanager
def sinks(*hosts: str, kind: type[Sink] = Sink) -> Iterator[list[Sink]]:
    """Running sinks, each on a port of its own."""
    made: list[tuple[Sink, ThreadingHTTPServer]] = []
    try:
        for host in hosts:
            sink = kind(host)
            server = ThreadingHTTPServer((host, 0), sink.handler())
            server.daemon_threads = True
            sink.port = server.server_port
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            made.append((sink, server))
        yield [sink for sink, _ in made]
    finally:
        for _, server in made:
            server.shutdown()
            server.server_close()
