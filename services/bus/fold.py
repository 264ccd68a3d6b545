"""The one step rule: how any input becomes a document and the events that follow.

Whatever starts it (an event, an action over HTTP, a deadline), a step reads the documents
it touches, applies pure functions, writes each document together with the events that
follow from it in one guarded write, acknowledges its input, publishes, and clears just
what was confirmed. What a crash leaves between two of these is found by :meth:`Fold.sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.bus import logs, metrics
from services.bus.errors import BrokerRefused, Defer, Refused, Reject, Retry
from services.grid.clock import Clock, Instant, monotonic
from services.grid.events import Event

log = logs.get(__name__)

Document = dict[str, Any]

_TRIES = 20
_SWEEP_BATCH = 500


@dataclass(frozen=True, slots=True)
class Unpublished:
    """An event that its document still keeps; ``written`` is in real Unix seconds."""

    event: Event
    written: float


@dataclass(frozen=True, slots=True)
class Record:
    """A document as the store has it.

    ``revision`` guards the next write; 0 means that there is none yet. ``confirmed`` is when
    the broker last confirmed an event of this document that says who holds the case.
    """

    key: str
    revision: int = 0
    document: Document | None = None
    unpublished: tuple[Unpublished, ...] = ()
    confirmed: Instant | None = None

    @property
    def custody_unpublished(self) -> bool:
        """Whether others may not know yet who holds the case."""
        return any(entry.event.custody for entry in self.unpublished)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a change comes to: the whole new document, the events, an answer for the caller.

    ``document`` None, or equal to what was there, writes nothing.
    """

    document: Document | None
    events: Sequence[Event] = ()
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Work:
    """One input: the key of the document it touches, and a pure change of that document.

    ``change`` may be called several times with newer records, so it must not act outside.
    It raises :class:`Reject`, :class:`Refused` or :class:`Defer` for this input alone, or
    :class:`Retry` for the whole step.
    """

    key: str
    change: Callable[[Record], Decision]


NOTHING = Work("", lambda _record: Decision(None))
"""The work of an input that touches no document."""


def failing(error: Reject | Defer) -> Work:
    """The work of an input that can't be worked on: it raises ``error`` for this input alone."""

    def change(_record: Record) -> Decision:
        raise error

    return Work("", change)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one :class:`Work`: its answer and document, or why it was turned away."""

    answer: Any = None
    document: Document | None = None
    error: Reject | Refused | Defer | None = None

    def result(self) -> Any:
        """The answer, or raises the error."""
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(frozen=True, slots=True)
class Write:
    """A guarded write: goes through only if the stored revision is still ``revision``."""

    key: str
    revision: int
    document: Document
    events: Sequence[Event] = field(default_factory=tuple)


class Store(Protocol):
    """Where documents live. In memory or in MongoDB, with the same behaviour."""

    def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records of these keys in one query; a key without one is absent."""

    def write(self, writes: Sequence[Write], written: float) -> set[str]:
        """Writes all in one bulk; returns the keys whose guard had failed.

        Adds ``events`` to what is unpublished and never takes any away.
        """

    def clear(self, published: Mapping[str, Sequence[Event]], at: Instant) -> None:
        """Removes just these events of these keys.

        ``at`` becomes the confirm time of keys of which an event says who holds the case.
        """

    def unpublished(self, before: float, limit: int) -> list[Record]:
        """Records with events written before ``before`` (real seconds), oldest first."""


class Publisher(Protocol):
    """Where events go."""

    def publish(self, events: Sequence[Event]) -> set[str]:
        """Publishes and waits; returns the ids that the broker confirmed.

        An event that no queue takes is not confirmed. Raises :class:`BrokerAway` if none
        could be.
        """


class Fold:
    """Runs steps against one store; the four services use it for all their inputs."""

    def __init__(self, store: Store, publisher: Publisher, clock: Clock) -> None:
        self.store = store
        self.publisher = publisher
        self.clock = clock

    def run(
        self, works: Sequence[Work], written: Callable[[list[Outcome]], None] | None = None
    ) -> list[Outcome]:
        """One step over a batch; inputs of the same key are applied in their order.

        ``written`` is called with the outcomes once everything is on disk: there the input
        is acknowledged, and what was rejected is parked. After it nothing raises; what could
        not be published is left to :meth:`sweep`.

        :returns: one outcome for each work, in their order.
        :raises Retry: nothing was acknowledged; the same step may be run again.
        """
        started = monotonic()
        outcomes: dict[int, Outcome] = {}
        pending: dict[str, list[int]] = {}
        for index, work in enumerate(works):
            pending.setdefault(work.key, []).append(index)
        emitted: dict[str, list[Event]] = {}
        for _ in range(_TRIES):
            if not pending:
                break
            pending = self._attempt(works, pending, outcomes, emitted)
            if pending:
                metrics.CONFLICTS.inc(len(pending))
        else:
            raise Retry(f"{len(pending)} documents kept changing while they were written")
        done = [outcomes[index] for index in range(len(works))]
        if written is not None:
            written(done)
        try:
            self._publish(emitted)
        except Retry as error:
            # They are in their documents; the sweep publishes them when both are back.
            log.warning("events wait for the sweep", why=str(error))
        metrics.STEP_SECONDS.observe(monotonic() - started)
        return done

    def _attempt(
        self,
        works: Sequence[Work],
        pending: Mapping[str, list[int]],
        outcomes: dict[int, Outcome],
        emitted: dict[str, list[Event]],
    ) -> dict[str, list[int]]:
        """Reads, applies and writes once; returns the keys that somebody else wrote meanwhile."""
        records = self.store.read(list(pending))
        writes: list[Write] = []
        for key, indexes in pending.items():
            record = records.get(key) or Record(key)
            document = record.document
            events: list[Event] = []
            for index in indexes:
                current = Record(
                    key, record.revision, document, record.unpublished, record.confirmed
                )
                try:
                    decision = works[index].change(current)
                except (Reject, Refused, Defer) as error:
                    outcomes[index] = Outcome(error=error, document=document)
                    continue
                if decision.document is not None:
                    document = decision.document
                events.extend(decision.events)
                outcomes[index] = Outcome(decision.answer, document)
            if document is not None and (events or document != record.document):
                writes.append(Write(key, record.revision, document, tuple(events)))
        conflicts = self.store.write(writes, self.clock.real()) if writes else set()
        for write in writes:
            if write.key not in conflicts and write.events:
                emitted.setdefault(write.key, []).extend(write.events)
        return {key: pending[key] for key in pending if key in conflicts}

    def _publish(self, emitted: Mapping[str, Sequence[Event]]) -> int:
        events = [event for group in emitted.values() for event in group]
        if not events:
            return 0
        confirmed = self.publisher.publish(events)
        cleared = {
            key: [event for event in group if event.id in confirmed]
            for key, group in emitted.items()
        }
        self.store.clear({key: group for key, group in cleared.items() if group}, self.clock.now())
        logs.each(log, "published", (event for event in events if event.id in confirmed))
        return len(confirmed)

    def sweep(self, older_than: float) -> int:
        """Publishes what a crash or an outage left; returns how many events were confirmed.

        Only what was written over ``older_than`` real seconds ago, so that it does not
        double what another process is just publishing.

        :raises Retry: the broker or the database is away.
        """
        records = self.store.unpublished(self.clock.real() - older_than, _SWEEP_BATCH)
        left = {record.key: [entry.event for entry in record.unpublished] for record in records}
        try:
            return self._publish(left)
        except BrokerRefused:
            # One that it refuses must not hold up the others: each by itself.
            return sum(self._alone(key, event) for key, group in left.items() for event in group)

    def _alone(self, key: str, event: Event) -> int:
        try:
            return self._publish({key: [event]})
        except BrokerRefused as error:
            log.error(
                "the broker refuses an event, which stays in its document",
                case=event.subject,
                event_id=event.id,
                key=event.key,
                why=str(error),
            )
            return 0
