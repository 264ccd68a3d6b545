"""Following the directory: each service's own copy of what intake publishes.

A follower keeps the entries in its own collection, so that a service that starts while
intake is away still knows its county, and an :class:`Atlas` in memory for decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from services.bus.fold import Decision, Fold, Outcome, Record, Work
from services.bus.store import MongoStore, database_errors
from services.grid import atlas
from services.grid.atlas import Atlas, Entry
from services.grid.clock import Clock, Instant, monotonic
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.grid.profile import Profile

_REFRESH_SECONDS = 5.0
_SKEW_SECONDS = 60.0


class Follower:
    """A service's copy of the directory; safe for several threads."""

    def __init__(self, fold: Fold, store: MongoStore, clock: Clock) -> None:
        self._fold = fold
        self._store = store
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._atlas: Atlas | None = None
        self._lock = threading.Lock()
        self._changed_until = 0.0
        self._refreshed = float("-inf")

    def ensure_indexes(self) -> None:
        """The index by which other replicas' changes are found."""
        self._store.ensure_indexes()
        with database_errors():
            self._store.collection.create_index("document.changed")

    def absorb(self, events: Sequence[Event]) -> list[Work]:
        """The work that merges ``directory.*`` events into the collection."""
        return [self._work(event) for event in events]

    def absorbed(self, outcomes: Sequence[Outcome]) -> None:
        """Takes what a step has written into the atlas at once."""
        with self._lock:
            for outcome in outcomes:
                if outcome.document is not None:
                    self._take(outcome.document)

    def entries(self) -> list[Entry]:
        """Every entry that there is now, retired ones too."""
        with self._lock:
            self._refresh()
            return list(self._entries.values())

    def atlas(self) -> Atlas:
        """What is known now; asks the database at most every few seconds.

        :raises DatabaseAway: it can't be asked.
        """
        with self._lock:
            if monotonic() - self._refreshed > _REFRESH_SECONDS:
                self._refresh()
            if self._atlas is None:
                self._atlas = Atlas.of(self._entries.values())
            return self._atlas

    def rules_for(self, facts: Mapping[str, Any]) -> Profile:
        """The rules that a case is under: of its profile version, and of its emergency.

        :raises UnknownProfile: they have not arrived yet, so whatever needs them must wait.
        """
        try:
            return self.atlas().rules_for(facts)
        except atlas.UnknownProfile:
            with self._lock:
                self._refresh()
            return self.atlas().rules_for(facts)

    def _work(self, event: Event) -> Work:
        key, entry = atlas.entry_of(event)
        stamped = {**entry, "changed": self._clock.real()}

        def change(record: Record) -> Decision:
            return Decision(atlas.merge(record.document, stamped))

        return Work(key, change)

    def _refresh(self) -> None:
        since = self._changed_until - _SKEW_SECONDS
        with database_errors():
            for raw in self._store.collection.find({"document.changed": {"$gt": since}}):
                self._take(raw["document"])
        self._refreshed = monotonic()

    def _take(self, document: dict[str, Any]) -> None:
        key = atlas.entry_key(document["kind"], document["entry"])
        self._changed_until = max(self._changed_until, document["changed"])
        known = self._entries.get(key)
        if known is None or known["version"] < document["version"]:
            self._entries[key] = document
            self._atlas = None


def wanted(instance: str, now: Instant, boot: str) -> Event:
    """``directory.wanted``: a service that starts asks for the whole directory."""
    return Event(
        id=event_id(instance, boot, "directory.wanted"),
        type="directory.wanted",
        subject=instance,
        time=now,
        source=f"huashi/{instance}",
        data={"by": instance},
        key="directory.wanted",
    )
