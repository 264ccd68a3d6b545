"""kombu's connection with fewer system calls: whole chunks are read, and frames sent together.

py-amqp asks the socket three times for each frame and sends each message by itself. At
thousands of messages a second that is most of a process's work (``bench/README.md``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu.connection
from amqp import basic_message, method_framing
from amqp.exceptions import FrameSyntaxError, UnexpectedFrame
from amqp.method_framing import frame_writer
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

_CHUNK = 1 << 16
_HEADER = struct.Struct(">BHI")
_FRAME_END = 0xCE
_UNREADABLE = (
    *(ValueError, ArithmeticError, OSError, LookupError, RecursionError),
    *(struct.error, FrameSyntaxError),
)


class Received(basic_message.Message):
    """A message as it came; one with properties that can't be read comes without any.

    RabbitMQ takes a content type that is no UTF-8, a time in the year 292277026596, and a header
    with a thousand lists in each other. py-amqp raises what ends its reader, before anybody could
    refuse the message: it would come again.
    """

    def _load_properties(self, class_id: int, buf: bytes, offset: int) -> int:
        try:
            found: int = super()._load_properties(class_id, buf, offset)
        except _UNREADABLE:
            self.properties: dict[str, Any] = {}
            return offset
        return found


# py-amqp has no other place to say of which class what comes is.
method_framing.Message = Received


class _Ahead:
    """Reads what has come in one go, and hands out whole frames."""

    _chunk = b""
    _at = 0
    connected: bool
    sock: Any

    def has_frame(self) -> bool:
        """Whether the next frame is here, so that reading it will not wait."""
        left = len(self._chunk) - self._at
        if left < _HEADER.size:
            return False
        size: int = _HEADER.unpack_from(self._chunk, self._at)[2]
        return left > _HEADER.size + size

    def read_frame(self) -> tuple[int, int, bytes]:
        """See :class:`amqp.transport._AbstractTransport`; what a timeout interrupts is kept."""
        while not self.has_frame():
            try:
                more = self.sock.recv(_CHUNK)
            except TimeoutError:
                raise
            except BlockingIOError as error:
                raise TimeoutError from error
            except OSError:
                self.connected = False
                raise
            if not more:
                self.connected = False
                raise ConnectionResetError("the broker closed the connection")
            self._chunk = self._chunk[self._at :] + more
            self._at = 0
        kind, channel, size = _HEADER.unpack_from(self._chunk, self._at)
        start = self._at + _HEADER.size
        end = start + size
        if self._chunk[end] != _FRAME_END:
            raise UnexpectedFrame(f"frame end {self._chunk[end]:#x}")
        self._at = end + 1
        return kind, channel, self._chunk[start:end]


class _Plain(_Ahead, TCPTransport):
    pass


class _Tls(_Ahead, SSLTransport):
    pass


class _Gathered:
    """What py-amqp's frame writer writes to: the socket, or for a while a list."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._size = 0
        self.holding = False

    def write(self, frames: Any) -> None:
        if not self.holding:
            self._transport.write(frames)
            return
        # The writer uses its buffer again.
        self._parts.append(bytes(frames))
        self._size += len(frames)
        if self._size >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._transport.write(b"".join(parts))


class _Wire(pyamqp.Connection):
    _gathered: _Gathered

    def __init__(self, **options: Any) -> None:
        super().__init__(frame_writer=self._writer, **options)

    def Transport(
        self,
        host: str,
        connect_timeout: float | None,
        ssl: Any = False,
        *timeouts: Any,
        **options: Any,
    ) -> Any:
        """See :class:`amqp.Connection`."""
        names = ("read_timeout", "write_timeout", "socket_settings")
        options |= dict(zip(names, timeouts, strict=False))
        kind = _Tls if ssl else _Plain
        return kind(host, connect_timeout=connect_timeout, ssl=ssl, **options)

    def _writer(self, connection: Any, transport: Any) -> Any:
        self._gathered = _Gathered(transport)
        return frame_writer(connection, self._gathered)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Handles all that is here already; only if that is nothing it waits."""
        if not self.transport.has_frame():
            return super().blocking_read(timeout)
        done = None
        while self.transport.has_frame():
            done = self.on_inbound_frame(self.transport.read_frame()) or done
        return done

    @contextmanager
    def gathering(self) -> Iterator[_Gathered]:
        """Sends what is written inside together, in chunks and at the end."""
        gathered = self._gathered
        gathered.holding = True
        try:
            yield gathered
            gathered.flush()
        finally:
            gathered.holding = False


class _Wires(pyamqp.Transport):
    Connection = _Wire


def connection(uri: str, **options: Any) -> kombu.connection.Connection:
    """A connection of kombu's, not connected yet, with its options."""
    return kombu.connection.Connection(uri, transport=_Wires, **options)
