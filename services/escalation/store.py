"""The custodian's collections: ``custody``, and ``custodians``, by which replicas share work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

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
            shard = ("document.shard", 1)
            self.collection.create_index([("document.next_due", 1), shard])
            self.collection.create_index([("document.rank", 1), ("document.next_due", 1), shard])
            self.collection.create_index([("document.state.token.stage", 1), ("_id", 1)])

    def due(self, horizon: Instant, limit: int, shards: Sequence[int], fresh: Instant) -> list[str]:
        """Cases with something due by ``horizon``, the most urgent and longest overdue first.

        Without those of which others may not know yet who holds them: the sweep is at work.
        When there are more than ``limit``, half of the places are for those due since
        ``fresh``: after an outage today's deadlines do not wait for yesterday's.

        :param shards: only cases of these.
        """
        others = {**_of(shards), **self._known_to_all()}
        overdue = {
            # All there are: so the index gives them in this order, without sorting.
            "document.rank": {"$in": list(range(model.RANKS))},
            "document.next_due": {"$lte": horizon},
            **others,
        }
        with database_errors():
            found = self._keys(overdue, ["document.rank", "document.next_due"], limit)
            if len(found) < limit:
                return found
            recent = {"document.next_due": {"$gt": fresh, "$lte": horizon}, **others}
            first = self._keys(recent, ["document.next_due"], limit // 2)
        return list(dict.fromkeys([*first, *found]))[:limit]

    def _keys(self, where: dict[str, Any], order: list[str], limit: int) -> list[str]:
        found = self.collection.find(where, {"_id": 1}).sort([(name, 1) for name in order])
        return [raw["_id"] for raw in found.limit(limit)]

    def next_due(self, shards: Sequence[int]) -> Instant | None:
        """When the next case of these shards is due, or none if no case is open."""
        where = {"document.next_due": {"$gt": ""}, **_of(shards), **self._known_to_all()}
        with database_errors():
            raw = self.collection.find_one(
                where, {"document.next_due": 1}, sort=[("document.next_due", 1)]
            )
        return None if raw is None else Instant(raw["document"]["next_due"])

    @staticmethod
    def _known_to_all() -> dict[str, Any]:
        return {"unpublished.custody": {"$ne": True}}


def _of(shards: Sequence[int]) -> dict[str, Any]:
    return {"document.shard": {"$in": list(shards)}}


class Custodians:
    """Which replicas live, and whose markers the reader of their queue has read.

    It holds no decision: what it says only divides the work, and a guarded write decides
    when two disagree for a moment.
    """

    name = "custodians"

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        # Said again each second: to lose it costs nothing.
        self._collection = collection.with_options(write_concern=WriteConcern(w=1, j=False))

    def ensure_indexes(self) -> None:
        """Replicas that are long gone are forgotten by the database itself."""
        with database_errors():
            for said in ("seen", "told"):
                self._collection.create_index(said, expireAfterSeconds=3600)

    def beat(self, replica: str) -> list[str]:
        """Says that a replica lives, and returns all that do, by the database's own clock."""
        fresh = {"$gt": ["$seen", {"$subtract": ["$$NOW", model.SILENT_SECONDS * 1000]}]}
        with database_errors():
            self._collection.update_one(
                {"_id": replica}, {"$currentDate": {"seen": True}}, upsert=True
            )
            return [raw["_id"] for raw in self._collection.find({"$expr": fresh}, {"_id": 1})]

    def reach(self, by: str, at: Instant) -> None:
        """All that was queued before the marker that ``by`` sent at ``at`` has been read."""
        with database_errors():
            self._collection.update_one(
                {"_id": by}, {"$max": {"at": at}, "$currentDate": {"told": True}}, upsert=True
            )

    def reached(self, by: str) -> Instant | None:
        """The last marker of ``by`` that another replica has read, or none."""
        with database_errors():
            raw = self._collection.find_one({"_id": by})
        return None if raw is None else Instant(raw["at"])
