"""The HTTP server under :mod:`services.bus.web`: eventlet's, hardened.

What it adds: limits of time and size for every part of a request, framing that leaves no
room for two readings (RFC 9112), problem documents where the library writes HTML or nothing,
and connections whose failures never take the service along.
"""

from __future__ import annotations

import logging
import re
import socket
from contextlib import suppress
from typing import Any

import eventlet
from eventlet import wsgi
from eventlet.semaphore import Semaphore
from nameko.extensions import ProviderCollector, SharedExtension

from services.bus import problems
from services.bus.problems import Problem
from services.grid import json
from services.grid.clock import monotonic

BODY_LIMIT = 64 * 1024
"""Bytes of a request's body; larger ones are refused with 413."""

BATCH_LIMIT = 1024 * 1024
"""The same for a body that holds many things, each of which has a limit of its own."""

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer: an API whose answers are for the caller alone and are never a page."""

CLOSE = "huashi.close"
"""In a request's environ: called when what follows on the connection can't be trusted."""

IDLE_SECONDS = 60.0
_SOCKET_SECONDS = 15.0
HEAD_SECONDS = 15.0
REQUEST_SECONDS = 60.0
_DRAIN_SECONDS = 5.0
_CONNECTIONS = 1_000
_BACKLOG = 256
# What is read of a body at most, framing included.
_WIRE_LIMIT = 4 * BATCH_LIMIT
# A refused body is read on and thrown away, so that its sender sees the answer, not a reset.
_LINGER_BYTES = 16 * 1024 * 1024
_LINGER_SECONDS = 5.0
_LINE_LIMIT = 8 * 1024
_TARGET_LIMIT = 8 * 1024

_log = logging.getLogger(__name__)
_LINE_ENDS = re.compile(r"[\r\n]")
# Python's int() takes them for hexadecimal numbers; another reader does not.
_ODD_SIZE = re.compile(rb"[ \t]*([+-]|0[xX]|[0-9A-Fa-f]+_)")
_ASCII_DIGITS = re.compile(r"[0-9]{1,18}")


class _Bounded:
    """A reader that gives up after so many bytes: chunk framing is else without a limit."""

    def __init__(self, source: Any, limit: int) -> None:
        self._source = source
        self._left = limit

    def read(self, size: int) -> bytes:
        return self._spend(self._source.read(min(size, self._left + 1)))

    def readline(self, size: int = -1) -> bytes:
        line = self._spend(self._source.readline(_LINE_LIMIT if size < 0 else size))
        if len(line) == _LINE_LIMIT:
            raise wsgi.ChunkReadError("a line between chunks is too long")
        if _ODD_SIZE.match(line):
            raise wsgi.ChunkReadError("a chunk's size is not a hexadecimal number")
        return line

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise wsgi.ChunkReadError("the body is longer than what is read of one")
        return data


class _Head:
    """A request's head as it is read; ``odd`` once a CR stands where none may."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.odd = False

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._source.readline(size)
        # The standard library's reader takes a bare CR for the end of a line.
        self.odd = self.odd or b"\r" in line.removesuffix(b"\r\n")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class Protocol(wsgi.HttpProtocol):
    """Reads one connection's requests; refuses what could be read in two ways."""

    rfile: Any
    _lingers = False

    def _read_request_line(self) -> bytes:
        # The wait for a next request, in total: a byte now and then doesn't prolong it.
        with eventlet.Timeout(IDLE_SECONDS, TimeoutError("idle")):
            line: bytes | str = super()._read_request_line()
        if len(line) < self.server.url_length_limit:
            return line or b""  # type: ignore[return-value]
        self._refuse(Problem(414, f"the request line is limited to {_TARGET_LIMIT} bytes"))
        return b""

    def parse_request(self) -> bool:
        """Reads the head; answers by itself and returns False if it can't be accepted."""
        whole: Any = self.rfile
        head = _Head(whole)
        self.rfile = head
        try:
            with eventlet.Timeout(HEAD_SECONDS, TimeoutError("slow head")):
                if not super().parse_request():
                    return False
        except (wsgi.HeaderLineTooLong, wsgi.HeadersTooLarge):
            self._refuse(Problem(431, "a header line is limited to 8 KiB, all to 64 KiB"))
            return False
        finally:
            self.rfile = whole
        problem = self._head_problem(head) or self._framing()
        if problem is not None:
            self._refuse(problem)
        return problem is None

    def _head_problem(self, head: _Head) -> Problem | None:
        # What the standard library's reader made of it: a line that is no header ends the head
        # for it, and what follows would be read as a second request.
        if self.headers.defects or self.headers.get_payload():
            return Problem(400, "a line of the head is not a header: write Name: value")
        if head.odd or any(_LINE_ENDS.search(value) for value in self.headers.values()):
            return Problem(400, "a line of the head ends in the middle: send CR LF only at its end")
        return None

    def _framing(self) -> Problem | None:
        lengths = self.headers.get_all("content-length", [])
        encodings = self.headers.get_all("transfer-encoding", [])
        if lengths and encodings:
            return Problem(400, "send Content-Length or Transfer-Encoding, not both")
        if len(lengths) > 1 or not all(_ASCII_DIGITS.fullmatch(text) for text in lengths):
            return Problem(400, "Content-Length must be one number of bytes")
        if encodings and [text.strip().lower() for text in encodings] != ["chunked"]:
            return Problem(501, "the only Transfer-Encoding understood is chunked")
        if encodings and self.request_version != "HTTP/1.1":
            return Problem(400, "Transfer-Encoding needs HTTP/1.1")
        if self.request_version == "HTTP/1.1" and len(self.headers.get_all("host", [])) != 1:
            return Problem(400, "send exactly one Host header")
        return None

    def get_environ(self) -> dict[str, Any]:
        """The request's environment, its body behind a limit."""
        environ: dict[str, Any] = super().get_environ()
        environ["eventlet.input"].rfile = _Bounded(self.rfile, _WIRE_LIMIT)
        environ[CLOSE] = self._close_after
        return environ

    def finish(self) -> None:
        """Ends the connection."""
        if self._lingers:
            with suppress(OSError), eventlet.Timeout(_LINGER_SECONDS, False):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_WR)
                left = _LINGER_BYTES
                while left > 0 and (data := self.connection.recv(64 * 1024)):
                    left -= len(data)
        super().finish()

    def _close_after(self) -> None:
        self.close_connection = 1
        self._lingers = True

    def handle_one_response(self) -> None:
        """Answers one request, reading and writing included, within a limit of time."""
        with eventlet.Timeout(REQUEST_SECONDS, TimeoutError("slow request")):
            super().handle_one_response()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library would answer with an HTML page."""
        # Its messages may quote the request line, which may hold a tracking code.
        said = (
            "the head has too many lines: send at most 100 headers"
            if code == 431
            else "this is not a request that can be read: send HTTP/1.1"
        )
        self._refuse(Problem(code, said))

    def _refuse(self, problem: Problem) -> None:
        self._close_after()
        body = json.dumps(problem.document())
        headers = {
            **SAFE_HEADERS,
            "Content-Type": problems.CONTENT_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {problem.status.value} {problem.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the application logs each answer, without its target."""


class Listener(ProviderCollector, SharedExtension):
    """One listening socket for each service process, on ``HTTP_BIND`` and nothing else.

    ``draining`` is set once the service stops; requests that come after it are put off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._socket: Any = None
        self._accepting: Any = None
        self._server: Any = None
        self.draining = False

    def application(self) -> Any:
        """The WSGI application that answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Listens; called for each extension that shares this one, so only once."""
        if self._socket is not None:
            return
        config = self.container.config["CONFIG"]
        family = socket.AF_INET6 if ":" in config.http_host else socket.AF_INET
        # Without reuse_port=False a second process could share the port unnoticed.
        self._socket = eventlet.listen(
            (config.http_host, config.http_port), family, _BACKLOG, reuse_port=False
        )
        self._socket.settimeout(None)
        self._server = wsgi.Server(
            self._socket,
            self._socket.getsockname(),
            self.application(),
            log=logging.getLogger("eventlet.wsgi"),
            protocol=Protocol,
            max_http_version="HTTP/1.1",
            keepalive=IDLE_SECONDS,
            socket_timeout=_SOCKET_SECONDS,
            url_length_limit=_TARGET_LIMIT,
            debug=False,
        )
        self._server.log_output = False
        self._accepting = self.container.spawn_managed_thread(self._accept)

    def drain(self) -> None:
        """Takes no more connections; those there are get their answers and are closed."""
        self.draining = True
        if self._accepting is not None:
            self._accepting.kill()
            self._socket.close()
            self._server.keepalive = False
            self._accepting = None

    def stop(self) -> None:
        """Waits a little for the answers that are on their way."""
        self.drain()
        until = monotonic() + _DRAIN_SECONDS
        while self._server and self._server.outstanding_requests and monotonic() < until:
            eventlet.sleep(0.02)
        super().stop()

    def _accept(self) -> None:
        room = Semaphore(_CONNECTIONS)
        while True:
            room.acquire()
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                # No file descriptors left, or a client that went at once: neither ends us.
                _log.warning("a connection could not be accepted: %s", error.strerror)
                room.release()
                eventlet.sleep(0.1)
                continue
            connection.settimeout(_SOCKET_SECONDS)
            thread = self.container.spawn_managed_thread(
                lambda c=connection, a=address: self._serve(c, a), identifier="connection"
            )
            thread.link(lambda _: room.release())

    def _serve(self, connection: Any, address: Any) -> None:
        """One connection; whatever happens on it stays on it."""
        try:
            self._server.process_request([address, connection, wsgi.STATE_IDLE])
        except OSError as error:
            _log.debug("a connection broke: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - logged; one connection must not end the service
            _log.exception("a connection was given up")
        finally:
            connection.close()
