"""The in-memory twins of the store and the bus: for the simulator and for fast tests.

They pass the same behaviour suite as MongoDB and RabbitMQ do
(``tests/integration/test_fold_behaviour.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from services.bus.errors import Collision
from services.bus.fold import Record, Unpublished, Write
from services.grid.clock import Instant
from services.grid.events import Event


class MemoryStore:
    """Documents in a dictionary, kept as JSON so that nobody shares them, as in a database.

    ``unique`` names a document field whose value no two documents may share.
    """

    def __init__(self, unique: str | None = None) -> None:
        self._records: dict[str, dict[str, Any]] = {}
        self._unique = unique

    def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """See :class:`services.bus.fold.Store`."""
        return {key: self._record(key) for key in keys if key in self._records}

    def write(self, writes: Sequence[Write], written: float) -> set[str]:
        """See :class:`services.bus.fold.Store`."""
        conflicts = set()
        for write in writes:
            stored = self._records.get(write.key)
            if (stored["revision"] if stored else 0) != write.revision:
                conflicts.add(write.key)
                continue
            self._check_unique(write)
            record = stored or {"unpublished": [], "confirmed": None}
            self._records[write.key] = {
                **record,
                "revision": write.revision + 1,
                "document": orjson.dumps(write.document),
                "unpublished": [
                    *record["unpublished"],
                    *(
                        (event.id, written, orjson.dumps(event.as_document()))
                        for event in write.events
                    ),
                ],
            }
        return conflicts

    def clear(self, published: Mapping[str, Sequence[Event]], at: Instant) -> None:
        """See :class:`services.bus.fold.Store`."""
        for key, events in published.items():
            record = self._records[key]
            ids = {event.id for event in events}
            record["unpublished"] = [
                entry for entry in record["unpublished"] if entry[0] not in ids
            ]
            if any(event.custody for event in events):
                record["confirmed"] = max(record["confirmed"] or at, at)

    def unpublished(self, before: float, limit: int) -> list[Record]:
        """See :class:`services.bus.fold.Store`."""
        found = [
            (min(written for _id, written, _event in record["unpublished"]), key)
            for key, record in self._records.items()
            if record["unpublished"]
        ]
        return [self._record(key) for written, key in sorted(found) if written < before][:limit]

    def documents(self) -> dict[str, dict[str, Any]]:
        """All documents by key, to look at: whoever wants to change one reads it."""
        return {key: _shown(record["document"]) for key, record in self._records.items()}

    def owes(self) -> bool:
        """Whether a document keeps an event that was not published."""
        return any(record["unpublished"] for record in self._records.values())

    def _check_unique(self, write: Write) -> None:
        value = write.document.get(self._unique) if self._unique is not None else None
        if self._unique is None or value is None:
            return
        for key, record in self._records.items():
            if key != write.key and orjson.loads(record["document"]).get(self._unique) == value:
                raise Collision(self._unique)

    def _record(self, key: str) -> Record:
        stored = self._records[key]
        return Record(
            key,
            stored["revision"],
            orjson.loads(stored["document"]),
            tuple(
                Unpublished(Event.of_document(orjson.loads(event)), written)
                for _id, written, event in stored["unpublished"]
            ),
            stored["confirmed"],
        )


# Far more is looked at than written, and a document's bytes never change.
_shown = lru_cache(maxsize=1024)(orjson.loads)


class MemoryBus:
    """A topic exchange whose queues are lists; a publish is confirmed at once.

    ``bind(queue, takes)``: ``takes`` says of an event whether the queue gets it. As on
    RabbitMQ, an event that no queue takes is not confirmed.
    """

    def __init__(self) -> None:
        self.queues: dict[str, list[bytes]] = {}
        self._bindings: list[tuple[str, Callable[[Event], bool]]] = []

    def bind(self, queue: str, takes: Callable[[Event], bool]) -> None:
        """From now on ``queue`` gets what ``takes`` says."""
        self.queues.setdefault(queue, [])
        self._bindings.append((queue, takes))

    def publish(self, events: Sequence[Event]) -> set[str]:
        """See :class:`services.bus.fold.Publisher`."""
        confirmed = set()
        for event in events:
            taken = {queue for queue, takes in self._bindings if takes(event)}
            for queue in taken:
                self.queues[queue].append(event.body())
            if taken:
                confirmed.add(event.id)
        return confirmed
