"""What comes from a broker that checks less than py-amqp expects."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from amqp import method_framing
from amqp.basic_message import Message

from services.bus import wire

_BASIC = 60
_HEADERS = 0x2000
_TIME = b"\x04ce-tT" + struct.pack(">Q", 2**62)


def table(entries: bytes) -> bytes:
    """Properties with nothing but headers."""
    return struct.pack(">HI", _HEADERS, len(entries)) + entries


def nested(levels: int) -> bytes:
    """A header that is a list in a list in a list."""
    inner = b""
    for _ in range(levels):
        inner = b"A" + struct.pack(">I", len(inner)) + inner
    return b"\x04ce-x" + inner


def received(properties: bytes) -> Any:
    message = method_framing.Message()
    message.inbound_header(struct.pack(">HxxQ", _BASIC, 2) + properties)
    return message


@pytest.mark.parametrize(
    "properties",
    [
        Message(b"", content_type=b"\xff\xfe")._serialize_properties(),
        Message(b"", content_type="x", message_id=b"\xff")._serialize_properties(),
        table(_TIME),
        table(nested(5000)),
    ],
)
def test_properties_that_can_not_be_read_end_no_reader(properties: bytes) -> None:
    message = received(properties)
    assert isinstance(message, wire.Received)
    assert (message.properties, message.body_size, message.headers) == ({}, 2, None)


def test_those_that_can_be_are() -> None:
    sent = {"content_type": "application/json", "application_headers": {"ce-id": "路灯"}}
    assert received(Message(b"", **sent)._serialize_properties()).properties == sent
