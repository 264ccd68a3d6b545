"""Publishing with confirms: many messages in flight, none of them lost or doubted.

A confirm that is awaited for each message costs a round trip each; here a window of messages
is in flight. Every message is ``mandatory``: one that no queue takes comes back, is counted
as an error and is not confirmed, so that its document keeps it.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import amqp
from amqp import spec

from services.bus import logs, metrics, wire
from services.bus.errors import BrokerAway, BrokerRefused
from services.bus.topology import DEAD, EVENTS, REPLAYS, REPLIES
from services.grid.clock import monotonic
from services.grid.events import Event
from services.grid.events.envelope import CONTENT_TYPE

log = logs.get(__name__)

_HEARTBEAT_SECONDS = 60
_IDLE_SECONDS = 10.0
# What can go wrong with a connection: all of it means to connect again.
CONNECTION_ERRORS = (OSError, amqp.exceptions.AMQPError)


@dataclass(slots=True)
class _Ticket:
    """What one caller hands over, and what became of it."""

    left: int
    confirmed: set[str] = field(default_factory=set)
    error: BrokerAway | None = None


@dataclass(slots=True)
class _Outgoing:
    id: str
    type: str
    exchange: str
    key: str
    message: amqp.Message
    ticket: _Ticket
    mandatory: bool = True


class ConfirmingPublisher:
    """Implements :class:`services.bus.fold.Publisher` on RabbitMQ; for several threads.

    One caller at a time works the connection, for all: what others hand over meanwhile goes
    out at once, so that the window stays full. It connects when it is first needed, and again
    after it broke.

    :param window: how many messages may be unconfirmed at a time.
    :param patience: real seconds without any confirm after which the broker counts as away.
    :param peer: what the metric ``huashi_connected`` calls this connection.
    """

    def __init__(
        self, uri: str, window: int = 500, patience: float = 10.0, peer: str = "broker"
    ) -> None:
        self._uri = uri
        self._peer = peer
        self._window = window
        self._patience = patience
        self._connecting = threading.Lock()
        self._queueing = threading.Lock()
        self._waiting: deque[_Outgoing] = deque()
        self._connection: Any = None
        self._channel: Any = None
        self._tag = 0
        self._answers = 0
        self._unconfirmed: dict[int, _Outgoing] = {}
        self._returned: Counter[str] = Counter()
        self._blocked = False
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    def publish(self, events: Sequence[Event]) -> set[str]:
        """See :class:`services.bus.fold.Publisher`."""
        ticket = _Ticket(len(events))
        return self._send(
            ticket,
            [
                _Outgoing(
                    event.id,
                    event.type,
                    EVENTS,
                    event.key,
                    _message(event.body(), CONTENT_TYPE, event.id, {}),
                    ticket,
                )
                for event in events
            ],
        )

    def letter(self, key: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publishes a dead letter.

        :raises BrokerAway: it was not confirmed; the message it is about must be kept.
        """
        identity = str(uuid.uuid4())
        message = _message(body, "application/octet-stream", identity, headers)
        ticket = _Ticket(1)
        letter = _Outgoing(identity, "dead letter", DEAD, key, message, ticket)
        if not self._send(ticket, [letter]):
            raise BrokerAway(f"no queue takes dead letters for {key}: run the topology step")

    def reply(self, replies: Sequence[tuple[str, Event]]) -> None:
        """Answers other systems: pairs of routing key and event; what nobody waits for is gone.

        :raises BrokerAway: not all were confirmed; what they answer must not be acknowledged.
        """
        confirmed = self._addressed(REPLIES, replies, mandatory=False)
        if not {event.id for _, event in replies} <= confirmed:
            raise BrokerAway("not all answers to other systems were confirmed")

    def replay(self, system: str, events: Sequence[Event]) -> set[str]:
        """Publishes events once more, into the queue of one system; returns which a queue took.

        :raises BrokerAway: none was confirmed.
        """
        keyed = [(f"{system}.{event.key}", event) for event in events]
        return self._addressed(REPLAYS, keyed, mandatory=True)

    def ready(self) -> bool:
        """Whether the broker takes messages now; connects if need be.

        :raises BrokerAway: it can't be reached.
        """
        with self._connecting:
            self._connect()
            return not self._blocked

    def close(self) -> None:
        """Ends the connection; it must not be used again."""
        self._closed.set()
        with self._connecting:
            self._disconnect(BrokerAway("this publisher is closed"))

    def _addressed(
        self, exchange: str, keyed: Sequence[tuple[str, Event]], *, mandatory: bool
    ) -> set[str]:
        """Publishes what is for another system."""
        ticket = _Ticket(len(keyed))
        outgoing = [
            _Outgoing(
                event.id,
                event.type,
                exchange,
                key,
                _message(event.body(), CONTENT_TYPE, event.id, {}),
                ticket,
                mandatory=mandatory,
            )
            for key, event in keyed
        ]
        return self._send(ticket, outgoing)

    def _send(self, ticket: _Ticket, outgoing: Sequence[_Outgoing]) -> set[str]:
        if not outgoing:
            return set()
        with self._queueing:
            self._waiting.extend(outgoing)
        with self._connecting:
            if ticket.left:
                self._serve(ticket)
        # Whoever got nothing confirmed hears why; the others clear what they got.
        if ticket.error is not None and not ticket.confirmed:
            raise ticket.error
        return ticket.confirmed

    def _serve(self, ticket: _Ticket) -> None:
        """Publishes for all callers until it is known what became of this ticket."""
        try:
            self._connect()
            last, seen = monotonic(), self._answers
            while ticket.left:
                self._put()
                self._drain()
                if self._answers > seen:
                    last, seen = monotonic(), self._answers
                elif monotonic() - last > self._patience:
                    raise BrokerAway(
                        f"RabbitMQ confirmed nothing for {self._patience} s"
                        + (" (it is out of memory or disk)" if self._blocked else "")
                    )
        except BrokerAway as away:
            self._give_up(away)
        except amqp.exceptions.ChannelError as refused:
            self._give_up(BrokerRefused(f"RabbitMQ: {refused}"))
        except CONNECTION_ERRORS as broken:
            self._give_up(BrokerAway(f"RabbitMQ: {broken}"))
        except BaseException:
            self._give_up(BrokerAway("publishing was broken off"))
            raise

    def _give_up(self, error: BrokerAway) -> None:
        """All callers hear it: what was sent may have arrived or not, the rest was not sent."""
        with self._queueing:
            unsent = list(self._waiting)
            self._waiting.clear()
        _fail(unsent, error)
        self._disconnect(error)

    def _put(self) -> None:
        """Sends as many as the window allows, together."""
        if not self._waiting or len(self._unconfirmed) > self._window // 2:
            return
        with self._queueing:
            room = min(self._window - len(self._unconfirmed), len(self._waiting))
            going = [self._waiting.popleft() for _ in range(room)]
            for outgoing in going:
                self._tag += 1
                self._unconfirmed[self._tag] = outgoing
        with self._connection.connection.gathering():
            for outgoing in going:
                # basic_publish would look for news from the broker before each message.
                self._channel.send_method(
                    spec.Basic.Publish,
                    "Bssbb",
                    (0, outgoing.exchange, outgoing.key, outgoing.mandatory, False),
                    outgoing.message,
                )

    def _drain(self) -> None:
        """Reads what the broker says; waits for a second if it says nothing."""
        try:
            self._connection.drain_events(timeout=1.0)
        except TimeoutError:
            return

    def _connect(self) -> None:
        if self._closed.is_set():
            raise BrokerAway("this publisher is closed")
        if self._connection is not None and self._connection.connected:
            return
        self._disconnect(BrokerAway("the connection to RabbitMQ broke"))
        connection: Any = wire.connection(
            self._uri,
            heartbeat=_HEARTBEAT_SECONDS,
            connect_timeout=self._patience,
            transport_options={
                "on_blocked": self._on_blocked,
                "on_unblocked": self._on_unblocked,
                "write_timeout": self._patience,
            },
        )
        try:
            connection.connect()
            channel = connection.default_channel
            channel.confirm_select()
        except CONNECTION_ERRORS as error:
            connection.release()
            raise BrokerAway(f"RabbitMQ can't be reached: {error}") from error
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._connection, self._channel = connection, channel
        metrics.CONNECTED.labels(self._peer).set(1)
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep_alive, daemon=True)
            self._keeper.start()

    def _disconnect(self, why: BrokerAway) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        _fail(self._unconfirmed.values(), why)
        self._tag, self._unconfirmed, self._blocked = 0, {}, False
        self._returned.clear()
        metrics.CONNECTED.labels(self._peer).set(0)
        if connection is not None:
            try:
                connection.release()
            except CONNECTION_ERRORS as error:
                log.debug("a broken connection could not be closed", why=str(error))

    def _keep_alive(self) -> None:
        """Sends heartbeats and reads what the broker says while nobody publishes."""
        while not self._closed.wait(_IDLE_SECONDS):
            with self._connecting:
                if self._connection is None:
                    continue
                try:
                    self._connection.heartbeat_check()
                    self._connection.drain_events(timeout=0.01)
                except TimeoutError:
                    continue
                except CONNECTION_ERRORS as error:
                    log.warning("the connection to the broker broke", why=str(error))
                    self._disconnect(BrokerAway(f"RabbitMQ: {error}"))

    def _on_ack(self, tag: int, multiple: bool) -> None:
        published: Counter[str] = Counter()
        for outgoing in self._taken(tag, multiple=multiple):
            outgoing.ticket.left -= 1
            if self._returned[outgoing.id]:
                self._returned[outgoing.id] -= 1
            else:
                outgoing.ticket.confirmed.add(outgoing.id)
                published[outgoing.type] += 1
        for kind, count in published.items():
            metrics.EVENTS_PUBLISHED.labels(kind).inc(count)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        for outgoing in self._taken(tag, multiple=multiple):
            outgoing.ticket.left -= 1
            log.error("the broker refused an event", event_id=outgoing.id, key=outgoing.key)

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        identity = message.properties.get("message_id", "")
        self._returned[identity] += 1
        # A binding is missing; the key ends in a division, which is no person's.
        metrics.EVENTS_RETURNED.labels(_type_of(key, exchange)).inc()
        log.error("no queue takes an event", event_id=identity, exchange=exchange, key=key)

    def _on_blocked(self, reason: str) -> None:
        self._blocked = True
        log.error("the broker takes no messages now", why=reason)

    def _on_unblocked(self) -> None:
        self._blocked = False
        log.info("the broker takes messages again")

    def _taken(self, tag: int, *, multiple: bool) -> list[_Outgoing]:
        self._answers += 1
        if not multiple:
            outgoing = self._unconfirmed.pop(tag, None)
            return [] if outgoing is None else [outgoing]
        # In the order of their tags: the first that is too great ends it.
        tags = takewhile(lambda known: known <= tag, list(self._unconfirmed))
        return [self._unconfirmed.pop(known) for known in tags]


def _fail(all_outgoing: Iterable[_Outgoing], error: BrokerAway) -> None:
    for outgoing in all_outgoing:
        outgoing.ticket.left, outgoing.ticket.error = 0, error


def _message(
    body: bytes, content_type: str, identity: str, headers: Mapping[str, str]
) -> amqp.Message:
    return amqp.Message(
        body,
        content_type=content_type,
        delivery_mode=2,
        message_id=identity,
        **({"application_headers": dict(headers)} if headers else {}),
    )


def _type_of(key: str, exchange: str) -> str:
    """The event type at the start of a routing key: a label with few values."""
    # There the system's name comes first.
    first = 1 if exchange == REPLAYS else 0
    return ".".join(key.split(".")[first : first + 2])
