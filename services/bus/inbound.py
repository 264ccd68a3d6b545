"""Reading what other systems send: a queue each, in turn, so that none waits for another.

    @inbound
    def on_inbound(self, parcels: Sequence[Parcel]) -> None:
        ...

The method returns when all of it is done with: then it is acknowledged. ``Retry`` lets it wait and
come again. Anything else is a defect: the parcels are taken apart, and the message that causes it
dies into ``huashi.parked``. What else is wrong with a message, the method answers.

How much of a system may be taken now, the service's ``Rooms`` say: of one that sends too much the
rest waits in its own queue, and when that is full the broker takes no more from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import amqp
from eventlet.event import Event as GreenEvent
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint

from services.bus import logs, metrics
from services.bus.alarm import hand_over
from services.bus.errors import Retry
from services.bus.publisher import CONNECTION_ERRORS
from services.bus.reading import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Reading
from services.bus.systems import inbound_queue
from services.grid.clock import monotonic

log = logs.get(__name__)

SIZE = 100
"""Most messages of one system that are taken together, and fetched ahead."""
_LINGER_SECONDS = 0.02
_REFRESH_SECONDS = 1.0
_ABSENT_SECONDS = 5.0
_FORGED_SECONDS = 60.0


class Rooms(Protocol):
    """Which systems there are, and how much of each may be taken now."""

    def rooms(self) -> Mapping[str, float]:
        """So many messages of each system, by name.

        :raises Retry: it is not known now.
        """


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came."""

    content_type: str | None
    headers: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """Messages of one system, in the order of its queue."""

    system: str
    messages: Sequence[Message]


@dataclass(slots=True)
class _Lane:
    """One system's queue; ``channel`` None while it can't be read."""

    channel: Any = None
    retry_at: float = 0.0
    buffer: deque[Any] = field(default_factory=deque)


@dataclass(slots=True)
class _Taken:
    """Messages of one lane that are in hand, with the channel that delivered them."""

    system: str
    lane: _Lane
    channel: Any
    messages: list[Any]

    def parcel(self) -> Parcel:
        return Parcel(self.system, [_message(each) for each in self.messages])

    def acknowledge(self) -> None:
        # Of a queue that is gone nothing is to be acknowledged.
        if self.channel is not None and self.lane.channel is self.channel:
            tag = self.messages[-1].delivery_info["delivery_tag"]
            self.channel.basic_ack(tag, multiple=True)

    def reject(self) -> None:
        if self.channel is not None and self.lane.channel is self.channel:
            self.channel.basic_reject(self.messages[0].delivery_info["delivery_tag"], False)


def _halves(parts: list[_Taken]) -> list[list[_Taken]] | None:
    """The parts taken apart; none if it is one message. No message goes before an earlier one."""
    if len(parts) > 1:
        return [[part] for part in parts]
    (part,) = parts
    middle = len(part.messages) // 2
    if middle == 0:
        return None
    halves = (part.messages[:middle], part.messages[middle:])
    return [[_Taken(part.system, part.lane, part.channel, half)] for half in halves]


class InboundReader(Reading):
    """Reads the queues of all systems over one connection, each on a channel of its own."""

    def __init__(self, uri: str, rooms: Rooms, handle: Callable[[Sequence[Parcel]], None]) -> None:
        super().__init__(uri, "inbound")
        self._rooms = rooms
        self._handle = handle
        self._lanes: dict[str, _Lane] = {}
        self._refreshed = float("-inf")
        self._room: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def _begin(self) -> None:
        self._lanes.clear()
        self._refreshed = float("-inf")

    def _turn(self) -> None:
        """Takes what each system has sent, as far as it may, all of it together."""
        self._look()
        if not self._waiting():
            self._drain()
        self._fill()
        together: list[_Taken] = []
        for name, lane in list(self._lanes.items()):
            messages = self._next(lane, int(self._room.get(name, 0)))
            if not messages:
                continue
            taken = _Taken(name, lane, lane.channel, messages)
            if messages[0].delivery_info["redelivered"]:
                # It may be what ended the process before: it takes no other along.
                self._process([taken])
            else:
                together.append(taken)
        if together:
            self._process(together)

    def _waiting(self) -> bool:
        return any(lane.buffer for lane in self._lanes.values())

    def _fill(self) -> None:
        """Reads on for a moment, if anything is here: what comes together is one step."""
        until = monotonic() + _LINGER_SECONDS
        while self._waiting() and (left := until - monotonic()) > 0:
            self._drain(left)

    def _look(self) -> None:
        """Which systems there are now, and how much of each may be taken."""
        try:
            self._room = dict(self._rooms.rooms())
        except Retry as error:
            log.warning("which systems there are is not known now", why=str(error))
            return
        now = monotonic()
        if now - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = now
        for name in self._lanes.keys() - self._room.keys():
            self._leave(self._lanes.pop(name))
        for name in self._room:
            lane = self._lanes.setdefault(name, _Lane())
            if lane.channel is None and now >= lane.retry_at:
                self._consume(name, lane)

    def _consume(self, name: str, lane: _Lane) -> None:
        channel = self._connection.connection.channel()
        # py-amqp would decode a body as its content encoding says: 250 KB of "punycode" take it
        # 13 s, for which nobody else is served. JSON is UTF-8, whatever a message says of itself.
        channel.auto_decode = False
        lane.buffer.clear()

        def came(message: Any) -> None:
            # Under its own key the broker lets a system name others' in the headers CC and BCC
            # (before RabbitMQ 4.0): what is delivered has the key that was allowed.
            key = message.delivery_info["routing_key"]
            if key.startswith(f"{name}."):
                lane.buffer.append(message)
                return
            metrics.EVENTS_REJECTED.labels("forged").inc()
            self._forged(key.partition(".")[0], name)
            channel.basic_ack(message.delivery_info["delivery_tag"])

        def gone(_tag: str) -> None:
            lane.channel, lane.retry_at = None, monotonic() + _ABSENT_SECONDS
            _close(channel)

        try:
            channel.basic_qos(0, SIZE, False)
            channel.basic_consume(inbound_queue(name), callback=came, on_cancel=gone)
        except amqp.exceptions.ChannelError as error:
            # It has a key and no broker user, or its queue is just being made.
            lane.retry_at = monotonic() + _ABSENT_SECONDS
            # It is open again: a refusal closes and the library revives it.
            _close(channel)
            log.debug("a system's queue can't be read", system=name, why=str(error))
        else:
            lane.channel = channel
            log.info("a system's queue is read", system=name)

    def _forged(self, system: str, to: str) -> None:
        """Says it now and then: who does it may do it at full speed."""
        now = monotonic()
        if now - self._told.get(system, float("-inf")) >= _FORGED_SECONDS:
            self._told[system] = now
            log.error("a system sent under another's name", system=system, to=to)

    @staticmethod
    def _leave(lane: _Lane) -> None:
        if lane.channel is not None:
            _close(lane.channel)

    @staticmethod
    def _next(lane: _Lane, room: int) -> list[Any]:
        """The next messages; one that was delivered before is a parcel by itself."""
        found: list[Any] = []
        while lane.buffer and len(found) < min(room, SIZE):
            again = lane.buffer[0].delivery_info["redelivered"]
            if again and found:
                break
            found.append(lane.buffer.popleft())
            if again:
                metrics.EVENTS_REDELIVERED.inc()
                break
        return found

    def _process(self, parts: list[_Taken]) -> None:
        """Handles messages until they are acknowledged; backs off while something is away."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._handle([part.parcel() for part in parts])
            except Retry as error:
                metrics.RETRIES.labels("other").inc()
                log.warning("what other systems sent waits", why=str(error))
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                halves = _halves(parts)
                if halves is not None:
                    for half in halves:
                        self._process(half)
                    return
                log.exception("a message of a system can't be handled", system=parts[0].system)
                metrics.EVENTS_REJECTED.labels(type(error).__name__).inc()
                parts[0].reject()
                return
            else:
                for part in parts:
                    part.acknowledge()
                return
            self._pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _close(channel: Any) -> None:
    """Closes a channel without waiting for the broker's word: other systems' turn comes first."""
    channel.is_closing = True
    channel.send_method(amqp.spec.Channel.Close, "BsBB", (0, "", 0, 0))


def _message(raw: Any) -> Message:
    # An empty body stays the text with which py-amqp begins.
    body = bytes(raw.body or b"")
    return Message(raw.properties.get("content_type"), raw.headers or {}, body)


class Inbound(Entrypoint):
    """The nameko entrypoint behind :func:`inbound`."""

    def __init__(self) -> None:
        super().__init__(expected_exceptions=(Exception,))
        self._reader: InboundReader | None = None

    def start(self) -> None:
        """See nameko's ``Extension``."""
        config = self.container.config
        self._reader = InboundReader(config["AMQP_URI"], config["ROOMS"], self._work)
        self.container.spawn_managed_thread(self._reader.run, identifier="inbound reader")

    def stop(self) -> None:
        """Finishes the parcel in hand; see nameko's ``Extension``."""
        if self._reader is not None:
            self._reader.stop()
            self._reader.join()

    def _work(self, parcels: Sequence[Parcel]) -> None:
        """Runs the method in a worker and waits for it."""
        done = GreenEvent()
        try:
            self.container.spawn_worker(
                self, (parcels,), {}, handle_result=partial(hand_over, done)
            )
        except ContainerBeingKilled as error:
            raise Retry("the service is stopping") from error
        done.wait()


Method = TypeVar("Method", bound=Callable[..., Any])


def inbound(method: Method) -> Method:
    """Makes a method the handler of what other systems send."""
    decorated: Method = Inbound.decorator(method)
    return decorated
