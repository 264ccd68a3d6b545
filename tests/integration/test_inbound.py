"""The reader of other systems' queues on a real broker: queues come and go beneath it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import amqp
import pytest
from kombu.connection import Connection

from deploy.local.processes import wait_until
from services.bus import inbound, reading
from services.bus.inbound import InboundReader, Parcel
from services.bus.systems import inbound_queue
from services.bus.topology import INBOUND

PATIENCE = 60.0


class Systems:
    """Which systems there are, what came of each, and how often a queue was looked for."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.names = ["here", "nowhere"]
        self.came: list[tuple[str, bytes]] = []
        self.reader = InboundReader(uri, self, self._handle)

    def rooms(self) -> dict[str, float]:
        return dict.fromkeys(self.names, 10.0)

    def _handle(self, parcels: Sequence[Parcel]) -> None:
        self.came += [(parcel.system, each.body) for parcel in parcels for each in parcel.messages]

    def at_broker(self, act: Callable[[Any], Any]) -> Any:
        with Connection(self.uri) as connection:
            return act(connection.default_channel)

    def make(self, name: str) -> None:
        queue = inbound_queue(name)
        arguments = {"x-queue-type": "quorum"}

        def declare(channel: Any) -> None:
            channel.exchange_declare(INBOUND, "topic", durable=True, auto_delete=False)
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
            channel.queue_bind(queue, INBOUND, f"{name}.#")

        self.at_broker(declare)

    def publish(self, name: str, body: bytes, **headers: Any) -> None:
        self.publish_message(name, amqp.Message(body, delivery_mode=2, application_headers=headers))

    def publish_message(self, name: str, message: amqp.Message) -> None:
        def publish(channel: Any) -> None:
            channel.confirm_select()
            channel.basic_publish_confirm(message, INBOUND, f"{name}.case.report")

        self.at_broker(publish)

    def send(self, name: str, body: bytes) -> None:
        self.publish(name, body)
        wait_until(f"{body!r} came", lambda: (name, body) in self.came, PATIENCE)

    def unread(self, name: str) -> bool:
        """Whether the reader knows that it does not read a queue."""
        return self.reader._lanes[name].channel is None

    @property
    def channels(self) -> int:
        """How many the reader has open, the connection's own among them."""
        return len(self.reader._connection.connection.channels)


@pytest.fixture
def systems(vhost_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systems]:
    monkeypatch.setattr(inbound, "_ABSENT_SECONDS", 0.02)
    monkeypatch.setattr(inbound, "_REFRESH_SECONDS", 0.02)
    monkeypatch.setattr(reading, "TICK_SECONDS", 0.02)
    found = Systems(vhost_uri)
    found.make("here")
    thread = threading.Thread(target=found.reader.run, daemon=True)
    thread.start()
    yield found
    found.reader.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_queue_that_is_not_there_costs_nothing_and_is_found_once_it_is(
    systems: Systems, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    consume = InboundReader._consume

    def counted(self: InboundReader, name: str, lane: Any) -> None:
        nonlocal looked
        looked += name == "nowhere"
        consume(self, name, lane)

    monkeypatch.setattr(InboundReader, "_consume", counted)
    systems.send("here", b"first")
    wait_until("it was looked for often", lambda: looked > 40, PATIENCE)
    # The connection's, that of the queue that is there, and one or two that are being closed.
    wait_until("few channels are open", lambda: systems.channels <= 4, PATIENCE)
    systems.make("nowhere")
    systems.send("nowhere", b"found")
    systems.send("here", b"second")


def test_a_queue_that_goes_while_it_is_read_holds_nobody_up(systems: Systems) -> None:
    for number in range(10):
        systems.make("nowhere")
        systems.send("nowhere", f"before {number}".encode())
        systems.at_broker(lambda channel: channel.queue_delete(inbound_queue("nowhere")))
        systems.send("here", f"meanwhile {number}".encode())
        # RabbitMQ 3.10 tells nobody of a quorum queue that is made again at once.
        wait_until("it knows", lambda: systems.unread("nowhere"), PATIENCE)
    wait_until("few channels are open", lambda: systems.channels <= 4, PATIENCE)


def test_a_system_that_leaves_and_comes_back_is_read_again(systems: Systems) -> None:
    systems.make("nowhere")
    for number in range(20):
        systems.names = ["here", "nowhere"]
        systems.send("nowhere", f"there {number}".encode())
        systems.names = ["here"]
        systems.send("here", f"alone {number}".encode())
    wait_until("few channels are open", lambda: systems.channels <= 4, PATIENCE)


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_nobody_sends_under_anothers_name_by_a_copy(systems: Systems, header: str) -> None:
    systems.make("nowhere")
    systems.send("nowhere", b"its own")
    systems.publish("here", b"forged", **{header: ["nowhere.case.report"]})
    systems.send("nowhere", b"its next")
    wait_until("the sender's own came", lambda: ("here", b"forged") in systems.came, PATIENCE)
    assert ("nowhere", b"forged") not in systems.came


class Nested(amqp.Message):
    """A message with a header of a thousand lists in each other, which py-amqp can't write."""

    def _serialize_properties(self) -> bytes:
        inner = b""
        for _ in range(1000):
            inner = b"A" + struct.pack(">I", len(inner)) + inner
        table = b"\x01x" + inner
        headers, delivery_mode = 1 << 13, 1 << 12
        return struct.pack(">HI", headers | delivery_mode, len(table)) + table + b"\x02"


@pytest.mark.parametrize(
    "message",
    [
        Nested(b"strange"),
        amqp.Message(b"", delivery_mode=2),
        # Decoded as it says, it would take a minute.
        amqp.Message(b"a" * 500_000 + b"-a", delivery_mode=2, content_encoding="punycode"),
        amqp.Message("路灯".encode("gbk"), delivery_mode=2, content_encoding="gbk"),
    ],
    ids=["nested", "empty", "punycode", "gbk"],
)
def test_what_is_strange_comes_as_it_is_and_ends_nobody(
    systems: Systems, message: amqp.Message
) -> None:
    systems.publish_message("here", message)
    systems.send("here", b"the next")
    assert systems.came == [("here", message.body or b""), ("here", b"the next")]
