"""Reading events in batches: many together, in order, none lost and none acknowledged early.

    @events("events")
    def on_events(self, batch: Batch) -> None:
        works = [model.work(event, ...) for event in batch.events]
        self.shell.fold.run(works, batch.acknowledge)

The type of an exception says what becomes of the messages. ``Retry``: the same batch again,
after a pause in the process. ``Reject`` (in an outcome): that message alone is parked in
``huashi.dead``, with its reason. Anything else is a defect: a batch is then taken apart, and
the message that causes it is parked; the others go on.
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import eventlet
from eventlet.event import Event as GreenEvent
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension

from services.bus import logs, metrics
from services.bus.alarm import hand_over
from services.bus.errors import BrokerAway, Collision, DatabaseAway, Defer, Reject, Retry
from services.bus.fold import Outcome
from services.bus.publisher import CONNECTION_ERRORS, ConfirmingPublisher
from services.bus.reading import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Reading, jittered
from services.bus.topology import again, instance
from services.grid.clock import ScaledClock, monotonic
from services.grid.events import Event, InvalidEvent

log = logs.get(__name__)

_GLANCE_SECONDS = 0.01
_LONGEST_REASON = 500
_AGAIN = again("")
_SINCE = "x-since"
_ORIGINAL_KEY = "x-original-key"
_CLOCK = ScaledClock()
# Batches that are published while the next is read: more keep the broker's window full, fewer
# keep little unpublished.
_PUBLISHING = 3

Acknowledge = Callable[[Sequence[Outcome]], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of their queue.

    ``acknowledge`` takes an outcome for each event once all is on disk: what was rejected is
    parked, then all are acknowledged together. Who waits meanwhile calls ``read_on``: it reads
    some of what is for the next batch, and is False when that is full.
    """

    events: Sequence[Event]
    acknowledge: Acknowledge
    read_on: Callable[[], bool]


Handler = Callable[[Batch], None]


@dataclass(slots=True)
class _Received:
    """A message with what it turned out to be."""

    message: Any
    event: Event | None = None
    reject: Reject | None = None

    @property
    def body(self) -> bytes:
        body: str | bytes = self.message.body
        return body.encode() if isinstance(body, str) else body

    @property
    def tag(self) -> int:
        tag: int = self.message.delivery_info["delivery_tag"]
        return tag

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.message.headers or {}

    @property
    def key(self) -> str:
        """The routing key under which it was published, however often it was put off."""
        deaths = self.headers.get("x-death")
        died = deaths[-1]["routing-keys"][0] if deaths else None
        own = self.message.delivery_info["routing_key"]
        return str(self.headers.get(_ORIGINAL_KEY) or died or own)

    @property
    def waited(self) -> float | None:
        """Real seconds since it was first put off, if it was."""
        since = self.headers.get(_SINCE)
        return None if since is None else _CLOCK.real() - float(since)

    @property
    def redelivered(self) -> bool:
        return bool(self.message.delivery_info["redelivered"])


class BatchReader(Reading):
    """Reads one queue and hands its messages to ``handle`` in batches.

    :param size: most messages a batch; twice as many are fetched ahead.
    :param linger: real seconds to wait for more after the first message of a batch.
    :param publisher: parks dead letters.
    :param patience: real seconds that an event which can't be worked on yet may wait.
    """

    def __init__(
        self,
        uri: str,
        queue: str,
        handle: Handler,
        publisher: ConfirmingPublisher,
        *,
        service: str,
        size: int = 500,
        linger: float = 0.02,
        patience: float = 3600.0,
    ) -> None:
        super().__init__(uri, queue)
        self.queue = queue
        self._handle = handle
        self._publisher = publisher
        self._service = service
        self._size = size
        self._linger = linger
        self._patience = patience
        self._well = False
        self._full = False
        self._buffer: deque[_Received] = deque()

    def ready(self) -> bool:
        """Whether it reads its queue and its last batch went through."""
        return self._well

    def behind(self) -> bool:
        """Whether more is waiting in its queue than it can take at once, or it can't go on."""
        return self._full or not self._well

    def _begin(self) -> None:
        self._buffer.clear()
        channel = self._connection.default_channel
        channel.basic_qos(0, 2 * self._size, False)
        channel.basic_consume(self.queue, callback=self._receive)
        self._well = True

    def _disconnect(self) -> None:
        self._well = False
        super()._disconnect()

    def _receive(self, message: Any) -> None:
        received = _Received(message)
        try:
            received.event = Event.read(received.body, received.key)
        except InvalidEvent as error:
            received.reject = Reject("invalid_event", str(error))
        self._buffer.append(received)

    def read_on(self) -> bool:
        """Reads what has come while a batch is in hand; False if the next is here already.

        It writes nothing: whoever has the batch in hand may be acknowledging it just now.
        """
        if len(self._buffer) >= self._size:
            return False
        try:
            self._connection.drain_events(timeout=_GLANCE_SECONDS)
        except TimeoutError:
            return True
        return True

    def _turn(self) -> None:
        if not self._buffer:
            self._drain()
            self._full = self._full and bool(self._buffer)
            return
        until = monotonic() + self._linger
        while len(self._buffer) < self._size and not self._buffer[0].redelivered:
            left = until - monotonic()
            if left <= 0:
                break
            self._drain(left)
        batch = self._next()
        if self._may_go_on(batch[0]):
            self._take(batch)

    def _may_go_on(self, received: _Received) -> bool:
        """Waits before an event that was put off is tried again; False if it is to stop."""
        waited = received.waited
        return waited is None or self._pause(min(max(1.0, waited / 2), LONGEST_PAUSE_SECONDS))

    def _next(self) -> list[_Received]:
        """The next batch; a message that was delivered before is one by itself."""
        batch = [self._buffer.popleft()]
        if batch[0].redelivered:
            metrics.EVENTS_REDELIVERED.inc()
            return batch
        while self._buffer and len(batch) < self._size and not self._buffer[0].redelivered:
            batch.append(self._buffer.popleft())
        return batch

    def _take(self, batch: list[_Received]) -> None:
        metrics.BATCH_SIZE.labels(self.queue).observe(len(batch))
        self._full = len(batch) >= self._size
        self._process(batch)

    def _process(self, batch: list[_Received]) -> bool:
        """Handles a batch until it is acknowledged; backs off while something is away.

        False if it is to stop before that: the batch is left to redelivery.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            attempt = _Attempt(self, batch)
            try:
                attempt.run(self._handle)
                break
            except Retry as error:
                cause = {BrokerAway: "broker", DatabaseAway: "database"}.get(type(error), "other")
                metrics.RETRIES.labels(cause).inc()
                log.warning("a batch waits", queue=self.queue, size=len(batch), why=str(error))
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                if attempt.acknowledged:
                    log.exception("failed after the acknowledgement", queue=self.queue)
                    break
                if len(batch) > 1:
                    middle = len(batch) // 2
                    # An acknowledgement is for all before it too: no half goes before the other.
                    return self._process(batch[:middle]) and self._process(batch[middle:])
                batch[0].reject = _as_reject(error)
                if batch[0].reject is not error:
                    log.exception("a message can't be handled", queue=self.queue, **_ids(batch[0]))
                continue
            self._well = False
            if not self._pause(jittered(pause)):
                return False
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._well = True
        return True

    def park(self, received: _Received, reject: Reject) -> None:
        """Publishes a message that can't be processed as a dead letter, and waits for it.

        :raises BrokerAway: it was not confirmed; the message must not be acknowledged.
        """
        headers = {
            "x-reason": reject.reason,
            "x-service": self._service,
            "x-error": str(reject)[:_LONGEST_REASON],
            **self._origin(received),
        }
        self._publisher.letter(f"parked.{self._base}", received.body, headers)
        metrics.EVENTS_REJECTED.labels(reject.reason).inc()
        log.error(
            "a message was parked",
            queue=self.queue,
            reason=reject.reason,
            why=str(reject)[:_LONGEST_REASON],
            **_ids(received),
        )

    def defer(self, received: _Received, why: Defer) -> None:
        """Lets an event wait in ``again`` for what it needs; parks it after too long.

        :raises BrokerAway: it was not confirmed; the message must not be acknowledged.
        """
        if (received.waited or 0.0) > self._patience:
            waited = f"waited for {self._patience:.0f} s: {why}"
            self.park(received, Reject("waited_too_long", waited))
            return
        headers = {_SINCE: f"{_CLOCK.real()}", **received.headers, **self._origin(received)}
        self._publisher.letter(f"again.{self._base}", received.body, headers)
        log.warning("an event is put off", queue=self.queue, why=str(why), **_ids(received))

    @property
    def _base(self) -> str:
        return self.queue.removesuffix(_AGAIN)

    def _origin(self, received: _Received) -> dict[str, str]:
        origin = {_ORIGINAL_KEY: received.key, "x-original-queue": self.queue}
        if received.event is not None:
            origin["x-event-id"] = received.event.id
        return origin


@dataclass(slots=True)
class _Attempt:
    """One try at a batch."""

    reader: BatchReader
    batch: list[_Received]
    acknowledged: bool = False
    good: list[_Received] = field(default_factory=list)

    def run(self, handle: Handler) -> None:
        self.good = [received for received in self.batch if received.reject is None]
        if not self.good:
            self.acknowledge([])
            return
        events = [received.event for received in self.good if received.event is not None]
        handle(Batch(events, self.acknowledge, self.reader.read_on))
        if not self.acknowledged:
            raise RuntimeError("the handler returned without acknowledging its batch")

    def acknowledge(self, outcomes: Sequence[Outcome]) -> None:
        """Parks what was rejected, puts off what came too early, then acknowledges all.

        :raises amqp.exceptions.RecoverableConnectionError: the connection that delivered them
            is gone, and with it the messages: they come again.
        """
        errors = {
            id(received): outcome.error
            for received, outcome in zip(self.good, outcomes, strict=True)
        }
        became: Counter[tuple[str, str]] = Counter()
        for received in self.batch:
            error = received.reject or errors.get(id(received))
            outcome = "done"
            if isinstance(error, Reject):
                self.reader.park(received, error)
                outcome = "rejected"
            elif isinstance(error, Defer):
                self.reader.defer(received, error)
                outcome = "deferred"
            kind = received.event.type if received.event is not None else "unknown"
            became[kind, outcome] += 1
        # On the channel that delivered it: on a later one the number means another message.
        last = self.batch[-1]
        last.message.channel.basic_ack(last.tag, multiple=True)
        self.acknowledged = True
        logs.each(log, "taken", (received.event for received in self.batch if received.event))
        for labels, count in became.items():
            metrics.EVENTS_CONSUMED.labels(*labels).inc(count)


class _Parking(SharedExtension):
    """One connection for dead letters in a service, made when the first is written."""

    def __init__(self) -> None:
        super().__init__()
        self._publisher: ConfirmingPublisher | None = None

    def letters(self) -> ConfirmingPublisher:
        """The publisher; made here because extensions are set up in any order."""
        if self._publisher is None:
            uri = self.container.config["AMQP_URI"]
            self._publisher = ConfirmingPublisher(uri, peer="letters")
        return self._publisher

    def stop(self) -> None:
        self.letters().close()


class _Workers:
    """Runs the batches of one reader in nameko's workers, the next as soon as it may begin."""

    def __init__(self, entrypoint: Events) -> None:
        self._entrypoint = entrypoint
        self._publishing: deque[GreenEvent] = deque()

    def handle(self, batch: Batch) -> None:
        """Returns once the batch is acknowledged: it is published while the next is read.

        :raises Exception: what the method raised before that.
        """
        turn, ended = GreenEvent(), GreenEvent()

        def acknowledge(outcomes: Sequence[Outcome]) -> None:
            batch.acknowledge(outcomes)
            turn.send()

        def over(_context: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            ended.send()
            if not turn.ready():
                hand_over(turn, _context, result, exc_info)
            elif exc_info is not None:
                log.error("failed after the acknowledgement", exc_info=exc_info)
            return result, exc_info

        try:
            self._entrypoint.container.spawn_worker(
                self._entrypoint,
                (Batch(batch.events, acknowledge, batch.read_on),),
                {},
                handle_result=over,
            )
        except ContainerBeingKilled as error:
            raise Retry("the service is stopping") from error
        while not turn.ready():
            # The worker first: it sends off what it then waits for.
            eventlet.sleep(0)
            try:
                if not batch.read_on():
                    break
            except CONNECTION_ERRORS:
                # What is in hand is finished first; to acknowledge it will fail.
                turn.wait()
                raise
        turn.wait()
        self._publishing.append(ended)
        if len(self._publishing) > _PUBLISHING:
            self._publishing.popleft().wait()


class Events(Entrypoint):
    """The nameko entrypoint behind :func:`events`: a queue of this service, and its ``again``."""

    parking = _Parking()

    def __init__(self, purpose: str) -> None:
        super().__init__(expected_exceptions=(Exception,))
        self.purpose = purpose
        self._readers: list[BatchReader] = []

    def setup(self) -> None:
        """See nameko's ``Extension``."""
        config = self.container.config
        queue = instance(config["SERVICE"], config["LEVEL"]).queues[self.purpose]
        for name, size in ((queue, config["BATCH_SIZE"]), (again(queue), 1)):
            reader = BatchReader(
                config["AMQP_URI"],
                name,
                _Workers(self).handle,
                self.parking.letters(),
                service=config["INSTANCE"],
                size=size,
                linger=config["BATCH_LINGER"],
            )
            self._readers.append(reader)
            config["READINESS"].register(f"queue {name}", reader.ready)
            if name == queue:
                config["BEHIND"].append(reader.behind)

    def start(self) -> None:
        """See nameko's ``Extension``."""
        for reader in self._readers:
            self.container.spawn_managed_thread(reader.run, identifier=f"reader {reader.queue}")

    def stop(self) -> None:
        """Finishes the batch in hand; see nameko's ``Extension``."""
        for reader in self._readers:
            reader.stop()
        for reader in self._readers:
            reader.join()


Method = TypeVar("Method", bound=Callable[..., Any])


def events(purpose: str) -> Callable[[Method], Method]:
    """Makes a method the handler of this service's queue for ``purpose`` (events, directory)."""
    decorate: Callable[[Method], Method] = Events.decorator(purpose)
    return decorate


def _as_reject(error: Exception) -> Reject:
    """Why a single message is parked that can't be handled."""
    if isinstance(error, Reject):
        return error
    if isinstance(error, Collision):
        return Reject("collision", str(error))
    return Reject("error", _last_line(error))


def _last_line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _ids(received: _Received) -> dict[str, str]:
    if received.event is None:
        return {}
    return {"event_id": received.event.id, "case": received.event.subject}
