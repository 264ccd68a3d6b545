"""The custodian's collections: ``custody``, and ``custodians``, by which replicas share work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from services.bus.fold import Record
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

    def under(self, profile: str, other_than: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Case and division of held cases under versions of a profile, in the order of keys.

        :param other_than: but not under this version.
        """
        where = {
            "document.state.token.stage": "held",
            "document.facts.profile": {"$regex": f"^{profile}@", "$ne": other_than},
            "_id": {"$gt": after},
        }
        with database_errors():
            found = self.collection.find(where, {"document.facts.division": 1}).sort("_id")
            return [
                (raw["_id"], raw["document"]["facts"]["division"]) for raw in found.limit(limit)
            ]

    def modes(
        self, after: str, limit: int, shards: Sequence[int]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Held cases of these shards with their facts, behind ``after`` in the order of ids."""
        where = {"document.state.token.stage": "held", "_id": {"$gt": after}, **_of(shards)}
        with database_errors():
            found = self.collection.find(where, {"document.facts": 1}).sort("_id").limit(limit)
            return [(raw["_id"], raw["document"]["facts"]) for raw in found]

    @staticmethod
    def _known_to_all() -> dict[str, Any]:
        return {"unpublished.custody": {"$ne": True}}

    def open_cases(self, after: str, limit: int) -> list[Record]:
        """Cases that somebody holds, behind the case ``after`` in the order of ids."""
        return self.after({"document.state.token.stage": "held"}, after, limit)


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


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Passes:
    """Whose turn it is to compare everything, how far it is, and what the last pass found.

    One record among the ``custodians``, by the database's own clock. It divides the work only:
    should two ever run at once, each repair is still guarded and does nothing twice.

    :param every: real seconds between two passes.
    """

    name = Custodians.name
    lease_seconds = 60.0
    """How long a replica that says nothing keeps its turn; longer than any one step takes."""

    _key: Mapping[str, Any] = {"_id": "reconciliation"}

    def __init__(self, collection: Collection[dict[str, Any]], every: float) -> None:
        self._collection = collection
        self._every = every

    def prepare(self) -> None:
        """Makes the record if there is none, and brings the next pass forward if need be."""
        at = {"$add": ["$$NOW", self._every * 1000]}
        made = {
            "next": {"$min": ["$next", at]},
            **{name: {"$ifNull": [f"${name}", 0]} for name in ("asked", "answered")},
            "until": {"$ifNull": ["$until", _NEVER]},
        }
        with database_errors():
            self._collection.update_one(self._key, [{"$set": made}], upsert=True)

    def look(self) -> dict[str, Any]:
        """The record; ``due`` says whether somebody should begin a pass now.

        It has ``asked`` and ``answered`` (how many passes were asked for, and how many of these
        are done), ``next``, ``holder``, ``started``, ``progress``, ``finished`` and ``last``.
        """
        computed = {"due": {"$and": [self._is_free(""), self._is_due()]}}
        with database_errors():
            found = list(self._collection.aggregate([{"$match": self._key}, {"$set": computed}]))
        return found[0] if found else {"due": False, "lost": True}

    def request(self) -> int:
        """Asks for a pass that begins after now; returns the number that ``answered`` reaches."""
        with database_errors():
            found = self._collection.find_one_and_update(
                self._key,
                {"$inc": {"asked": 1}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        return int((found or {"asked": 0})["asked"])

    def take(self, replica: str) -> bool:
        """Begins a pass, if one is due and nobody else is at it."""
        where = {**self._key, "$expr": {"$and": [self._is_free(replica), self._is_due()]}}
        begun = {
            "holder": replica,
            "until": self._later(),
            "started": "$$NOW",
            "taken": "$asked",
            "progress": {"$literal": {}},
        }
        with database_errors():
            return bool(self._collection.update_one(where, [{"$set": begun}]).matched_count)

    def renew(self, replica: str, progress: Mapping[str, Any]) -> bool:
        """Says how far it is; False if somebody else has taken over."""
        change = {"until": self._later(), "progress": {"$literal": dict(progress)}}
        with database_errors():
            done = self._collection.update_one({**self._key, "holder": replica}, [{"$set": change}])
        return bool(done.matched_count)

    def finish(self, replica: str, result: Mapping[str, Any]) -> None:
        """Ends the pass, unless somebody else has taken over."""
        change = {
            "holder": None,
            "until": _NEVER,
            "answered": "$taken",
            "finished": "$$NOW",
            "next": {"$add": ["$$NOW", self._every * 1000]},
            "last": {
                "$mergeObjects": [
                    {"$literal": dict(result)},
                    {"started": "$started", "finished": "$$NOW"},
                ]
            },
        }
        with database_errors():
            self._collection.update_one({**self._key, "holder": replica}, [{"$set": change}])

    def _later(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", self.lease_seconds * 1000]}

    @staticmethod
    def _is_free(replica: str) -> dict[str, Any]:
        return {"$or": [{"$eq": ["$holder", replica]}, {"$lte": ["$until", "$$NOW"]}]}

    @staticmethod
    def _is_due() -> dict[str, Any]:
        return {"$or": [{"$lte": ["$next", "$$NOW"]}, {"$gt": ["$asked", "$answered"]}]}
