"""What other systems sent is taken as it came: what a message says of itself costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.serialization import dumps

from services.bus.inbound import InboundReader, Parcel

_TAG = "reader"


class Channel(amqp.Channel):
    """py-amqp's own, with a broker that agrees to everything."""

    def __init__(self) -> None:
        connection = SimpleNamespace(
            channels={}, confirm_publish=False, _claim_channel_id=lambda _: None
        )
        super().__init__(connection, 1)

    def basic_qos(self, *_args: Any, **_kwargs: Any) -> None:
        """Agreed."""

    def basic_consume(self, _queue: str, callback: Callable[[Any], None], **_kwargs: Any) -> None:
        self.callbacks[_TAG] = callback

    def basic_ack(self, *_args: Any, **_kwargs: Any) -> None:
        """Agreed."""

    def comes(self, message: amqp.Message, key: str = "mad.case.report") -> None:
        """Delivers a message as the broker would."""
        said = dumps("sLbss", [_TAG, 1, False, "huashi.inbound", key])
        self.dispatch_method(amqp.spec.Basic.Deliver, b"\0\0\0\0" + said, message)


class Mad:
    """The only system that there is."""

    def rooms(self) -> Mapping[str, float]:
        return {"mad": 10.0}


def reading(came: list[Parcel]) -> tuple[InboundReader, Channel]:
    """A reader of what comes on a channel."""

    def take(parcels: Sequence[Parcel]) -> None:
        came.extend(parcels)

    reader, channel = InboundReader("amqp://nowhere", Mad(), take), Channel()
    reader._connection = SimpleNamespace(
        connection=SimpleNamespace(channel=lambda: channel),
        heartbeat_check=lambda: None,
        drain_events=lambda **_timeout: None,
    )
    reader._look()
    return reader, channel


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        # Takes py-amqp the square of its length.
        ("punycode", b"a-aaaa"),
        ("utf-7", b"a+-"),
        ("unicode_escape", b"\\ud800"),
        ("utf-8", '{"title": "路灯不亮"}'.encode()),
        # Of a message without a body py-amqp sets none.
        ("utf-8", ""),
    ],
)
def test_a_body_is_not_decoded_as_its_content_encoding_says(
    encoding: str, body: bytes | str
) -> None:
    came: list[Parcel] = []
    reader, channel = reading(came)
    channel.comes(amqp.Message(body, content_encoding=encoding))
    reader._turn()
    ((message,),) = [parcel.messages for parcel in came]
    assert message.body == (body or b"")


def test_who_writes_to_another_s_queue_is_named_and_not_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    came: list[Parcel] = []
    reader, channel = reading(came)
    for _ in range(20):
        channel.comes(amqp.Message(b"{}"), "worse.case.report")
    channel.comes(amqp.Message(b"{}"))
    reader._turn()
    assert [len(parcel.messages) for parcel in came] == [1]
    assert capsys.readouterr().out.count("under another's name") == 1
