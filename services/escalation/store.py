"""The custodian's collection, ``custody``, and the questions that are asked of it."""

from __future__ import annotations

from typing import Any

from services.bus.store import MongoStore, database_errors
from services.escalation import model
from services.grid.clock import Instant


class Custody(MongoStore):
    """One record a case; ``next_due`` says when to look at it again."""

    name = "custody"

    def ensure_indexes(self) -> None:
        """Plain indexes: a partial one on ``next_due`` is not used by ``$lte``."""
        super().ensure_indexes()
        with database_errors():
            self.collection.create_index("document.next_due")
            self.collection.create_index([("document.rank", 1), ("document.next_due", 1)])

    def due(self, horizon: Instant, limit: int) -> list[str]:
        """Cases with something due by ``horizon``, the most urgent and longest overdue first.

        Without those of which others may not know yet who holds them: the sweep is at work.
        """
        where = {
            # All there are: so the index gives them in this order, without sorting.
            "document.rank": {"$in": list(range(model.RANKS))},
            "document.next_due": {"$lte": horizon},
            **self._known_to_all(),
        }
        with database_errors():
            found = self.collection.find(where, {"_id": 1})
            found = found.sort([("document.rank", 1), ("document.next_due", 1)])
            return [raw["_id"] for raw in found.limit(limit)]

    def next_due(self) -> Instant | None:
        """When the next case is due, or none if no case is open."""
        where = {"document.next_due": {"$gt": ""}, **self._known_to_all()}
        with database_errors():
            raw = self.collection.find_one(
                where, {"document.next_due": 1}, sort=[("document.next_due", 1)]
            )
        return None if raw is None else Instant(raw["document"]["next_due"])

    @staticmethod
    def _known_to_all() -> dict[str, Any]:
        return {"unpublished.custody": {"$ne": True}}
