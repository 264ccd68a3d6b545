"""Notify's collections: notifications, who watches what, contacts, subscribers and their outbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from services.bus.fold import Document
from services.bus.store import MongoStore, database_errors, record_of
from services.grid.clock import Instant, monotonic

_KNOWN_SECONDS = 1.0


class Notifications(MongoStore):
    """One record for each event that somebody is told of."""

    name = "notifications"

    def ensure_indexes(self) -> None:
        """An index for the deliveries whose turn it is."""
        super().ensure_indexes()
        with database_errors():
            self.collection.create_index("document.next_try")

    def due(self, now: Instant, limit: int) -> list[str]:
        """Keys of those with a delivery whose next try has come, the longest waiting first."""
        with database_errors():
            found = self.collection.find({"document.next_try": {"$lte": now}}, {"_id": 1})
            return [raw["_id"] for raw in found.sort("document.next_try").limit(limit)]

    def next_try(self) -> Instant | None:
        """When the next delivery is due, or none if nothing waits."""
        with database_errors():
            raw = self.collection.find_one(
                {"document.next_try": {"$gt": ""}},
                {"document.next_try": 1},
                sort=[("document.next_try", 1)],
            )
        return None if raw is None else Instant(raw["document"]["next_try"])


class Watchers(MongoStore):
    """Who watches a case (关注): one record a case, ``{case, watchers, version}``.

    Its collection has the name that it had before others could subscribe over HTTP.
    """

    name = "subscriptions"


class Contacts:
    """How a recipient can be reached: ``{_id: recipient, webhook, secret}``, the secret sealed."""

    name = "contacts"

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def put(self, recipient: str, webhook: str | None, sealed: str | None) -> None:
        """Keeps or, with none, forgets how a recipient is reached."""
        kept = {"webhook": webhook, "secret": sealed}
        with database_errors():
            self._collection.bulk_write(
                [UpdateOne({"_id": recipient}, {"$set": kept}, upsert=True)]
            )

    def of(self, recipients: list[str]) -> dict[str, dict[str, Any]]:
        """``{webhook, secret}`` of those recipients that have a webhook."""
        with database_errors():
            found = self._collection.find({"_id": {"$in": recipients}})
            return {raw["_id"]: raw for raw in found if raw.get("webhook")}


class Subscribers(MongoStore):
    """Subscriptions over HTTP (:mod:`services.notify.subscriptions`), by their ids.

    What was read is believed for a second, so in another process a change counts after that; only
    before something is gathered or sent it is read anew.
    """

    name = "subscribers"

    def __init__(
        self, collection: Collection[dict[str, Any]], now: Callable[[], float] = monotonic
    ) -> None:
        super().__init__(collection)
        self._now = now
        self._read_at = float("-inf")
        self._known: list[Document] = []

    def all(self) -> list[Document]:
        """All but those that were removed, in the order of their ids."""
        if self._now() - self._read_at >= _KNOWN_SECONDS:
            with database_errors():
                found = self.collection.find({"document.status": {"$ne": "removed"}}).sort("_id")
                records = [record_of(raw) for raw in found]
            self._known = [record.document for record in records if record.document]
            self._read_at = self._now()
        return self._known

    def forget(self) -> None:
        """Reads them anew when they are asked for next."""
        self._read_at = float("-inf")


class Outbox(MongoStore):
    """What waits for subscribers (:mod:`services.notify.outbox`), a line for each case."""

    name = "outbox"

    def ensure_indexes(self) -> None:
        """A subscription's lines by whose turn is next, and by which has waited longest."""
        super().ensure_indexes()
        with database_errors():
            for by in ("next_try", "since"):
                self.collection.create_index([("document.subscription", 1), (f"document.{by}", 1)])

    def turns(self, subscription: str, limit: int) -> list[tuple[str, float]]:
        """The keys of the next lines, each with when its turn is, the first in turn first."""
        where = {"document.subscription": subscription, "document.next_try": {"$gt": 0.0}}
        with database_errors():
            found = self.collection.find(where, {"document.next_try": 1})
            turns = found.sort("document.next_try").limit(limit)
            return [(raw["_id"], raw["document"]["next_try"]) for raw in turns]

    def waiting(self, subscription: str, most: int) -> int:
        """How many cases have something waiting, counted up to ``most``."""
        where = {"document.subscription": subscription, "document.next_try": {"$gt": 0.0}}
        with database_errors():
            return self.collection.count_documents(where, limit=most)

    def oldest(self, subscription: str) -> float | None:
        """Since when the longest waiting event has waited, in real Unix seconds."""
        where = {"document.subscription": subscription, "document.since": {"$gt": 0.0}}
        with database_errors():
            raw = self.collection.find_one(
                where, {"document.since": 1}, sort=[("document.since", 1)]
            )
        return None if raw is None else float(raw["document"]["since"])

    def drop(self, subscription: str) -> None:
        """Forgets all that waits for a subscriber that wants nothing any more."""
        where = {"document.subscription": subscription, "document.next_try": {"$gt": 0.0}}
        nothing: dict[str, Any] = {
            "document.waiting": [],
            "document.next_try": None,
            "document.since": None,
        }
        with database_errors():
            self.collection.update_many(where, {"$set": nothing, "$inc": {"revision": 1}})
