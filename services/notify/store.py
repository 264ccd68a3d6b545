"""Notify's collections: notifications, subscriptions, and contacts, which never leave it."""

from __future__ import annotations

from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from services.bus.store import MongoStore, database_errors
from services.grid.clock import Instant


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


class Subscriptions(MongoStore):
    """Who watches a case: one record a case, ``{case, watchers, version}``."""

    name = "subscriptions"


class Contacts:
    """How a recipient can be reached: ``{_id: recipient, webhook}``."""

    name = "contacts"

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def put(self, recipient: str, webhook: str | None) -> None:
        """Keeps or, with none, forgets how a recipient is reached."""
        with database_errors():
            self._collection.bulk_write(
                [UpdateOne({"_id": recipient}, {"$set": {"webhook": webhook}}, upsert=True)]
            )

    def webhooks(self, recipients: list[str]) -> dict[str, str]:
        """The URLs of those recipients that have one."""
        with database_errors():
            found = self._collection.find({"_id": {"$in": recipients}})
            return {raw["_id"]: raw["webhook"] for raw in found if raw.get("webhook")}
