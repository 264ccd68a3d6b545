"""A desk's collection, ``docket_<level>``, and the questions that are asked of it."""

from __future__ import annotations

from typing import Any

from services.bus.fold import Record
from services.bus.paging import Cursor
from services.bus.store import MongoStore, database_errors, record_of
from services.grid.clock import Instant
from services.grid.scope import Scope
from services.grid.whistles import DONE

_UNIT = "document.state.address.unit"
_CALLED_AT, _CALLED_UNIT = "document.call.at", "document.call.unit"


class Docket(MongoStore):
    """One record for each time a case came to this desk."""

    name = "docket_{level}"

    def ensure_indexes(self) -> None:
        """One index for each question below."""
        super().ensure_indexes()
        with database_errors():
            self.collection.create_index(
                [
                    ("document.under", 1),
                    ("document.status", 1),
                    ("document.arrived", -1),
                    ("_id", -1),
                ]
            )
            self.collection.create_index(
                [("document.status", 1), ("document.arrived", -1), ("_id", -1)]
            )
            self.collection.create_index(
                [("document.extension.asked_at", -1), ("_id", -1)],
                partialFilterExpression={"document.asked_in": {"$exists": True}},
            )
            for by in ([], [(_CALLED_UNIT, 1)]):
                self.collection.create_index(
                    [*by, (_CALLED_AT, -1), ("_id", -1)],
                    partialFilterExpression={"document.call": {"$exists": True}},
                )
            self.collection.create_index([("document.status", 1), ("_id", 1)])
            # Most cases are with no unit.
            self.collection.create_index(
                [(_UNIT, 1), ("document.status", 1), ("document.arrived", -1), ("_id", -1)],
                partialFilterExpression={_UNIT: {"$gt": ""}},
            )

    def of_case(self, case: str) -> list[Record]:
        """The entries of each time that a case came to this desk, the latest last."""
        # Keys begin with the case (entry_key), and ";" comes right after ":". What else is kept
        # here begins with words that anybody may write for a case: "call", "extension".
        where = {"_id": {"$gte": f"{case}:", "$lt": f"{case};"}, "document.case": case}
        with database_errors():
            raws = list(self.collection.find(where))
        return [record_of(raw) for raw in sorted(raws, key=lambda raw: _when(raw["document"]))]

    def entries(
        self, part: Scope, status: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of entries, the latest arrival first; see :meth:`MongoStore.page`.

        :param part: a part of the county; the level is this desk's anyway.
        """
        where = {**_arrived(part, status), "document.arrived": {"$ne": None}}
        return self.page(where, "document.arrived", cursor, limit)

    def rates(self, part: Scope, since: Instant, until: Instant) -> dict[str, int]:
        """Of the entries that arrived from ``since`` to before ``until``: how many of each.

        ``arrived`` all of them; ``acknowledged`` accepted or settled here; ``completed`` settled
        here, ``on_time`` before that was due; ``overdue`` where any deadline passed; ``due``
        settled or overdue. A case that only had a hop to the same holder came once.
        """
        arrived = {"document.arrived": {"$gte": since, "$lt": until}}
        passed: dict[str, Any] = {"$ifNull": ["$document.passed", []]}
        completed = {"$eq": ["$document.ended", "resolved"]}
        accepted = {"$gt": ["$document.state.acknowledged", None]}
        overdue = {"$ne": [passed, []]}
        late = {"$or": [{"$in": [kind, passed]} for kind in ("report", "resolve")]}
        here = {"$eq": ["$document.held.address", "$document.state.address"]}
        # What is settled after it had moved on to another has its release.
        kept = {"$or": [{"$eq": ["$document.held", None]}, here]}
        counts = {
            "arrived": True,
            "acknowledged": {"$or": [accepted, completed]},
            "completed": completed,
            "on_time": {"$and": [completed, kept, {"$not": [late]}]},
            "overdue": overdue,
            "due": {"$or": [completed, overdue]},
        }
        at_once: list[dict[str, Any]] = [
            {"$eq": ["$document.ended", "custody"]},
            {"$eq": ["$document.held.token.round", "$document.round"]},
            {"$eq": ["$document.held.token.hop", {"$add": ["$document.hop", 1]}]},
            here,
        ]
        # What passed here is known of this entry alone: it counts.
        stayed = {"$and": [*at_once, {"$not": [overdue]}]}
        group = {name: {"$sum": {"$cond": [item, 1, 0]}} for name, item in counts.items()}
        pipeline = [
            {"$match": {**_arrived(part, None), **arrived, "$expr": {"$not": [stayed]}}},
            {"$group": {"_id": None, **group}},
        ]
        with database_errors():
            found = next(iter(self.collection.aggregate(pipeline)), {})
        return {name: found.get(name, 0) for name in counts}

    def calls(
        self, part: Scope, status: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of what the units of this level are called to, the latest first."""
        where = {**_called(part), **({"document.status": status} if status else {})}
        return self.page(where, _CALLED_AT, cursor, limit)

    def call_rates(
        self, part: Scope, since: Instant, until: Instant, now: Instant
    ) -> dict[str, float | None]:
        """Of the calls (吹哨) from ``since`` to before ``until``: how many of each.

        ``called`` all of them; ``checked_in`` and ``finished`` in time or not, ``…_on_time`` in
        time; ``…_due`` those, and whose time passed before they might leave; ``scored`` how many
        the holder scored, ``score`` their mean, none of nothing.
        """
        left = {"$ifNull": ["$document.ended.at", now]}
        counts: dict[str, Any] = {"called": True}
        for kind, name in DONE.items():
            due, at = f"$document.call.{kind}.due", f"$document.{name}.at"
            done = {"$gt": [at, None]}
            counts[name] = done
            counts[f"{name}_on_time"] = {"$and": [done, {"$lte": [at, due]}]}
            counts[f"{name}_due"] = {"$or": [done, {"$lte": [due, left]}]}
        score = "$document.ended.released.score"
        counts["scored"] = {"$gt": [score, None]}
        group = {name: {"$sum": {"$cond": [item, 1, 0]}} for name, item in counts.items()}
        pipeline = [
            {"$match": {**_called(part), _CALLED_AT: {"$gte": since, "$lt": until}}},
            {"$group": {"_id": None, **group, "score": {"$avg": score}}},
        ]
        with database_errors():
            found = next(iter(self.collection.aggregate(pipeline)), {})
        return {**{name: found.get(name, 0) for name in counts}, "score": found.get("score")}

    def extensions(
        self, part: Scope, status: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of what the level below asks for, the latest first."""
        where: dict[str, Any] = {"document.asked_in": {"$exists": True}}
        where |= _within(part, "asked_of", status)
        return self.page(where, "document.extension.asked_at", cursor, limit)


def _within(part: Scope, address: str, status: str | None) -> dict[str, Any]:
    where = {
        "document.under": part.division,
        f"document.{address}.unit": part.unit,
        "document.status": status,
    }
    return {name: value for name, value in where.items() if value is not None}


def _called(part: Scope) -> dict[str, Any]:
    """Calls of units in a part of the county."""
    where: dict[str, Any] = {"document.call": {"$exists": True}}
    limits = {"document.under": part.division, _CALLED_UNIT: part.unit}
    return where | {name: value for name, value in limits.items() if value is not None}


def _arrived(part: Scope, status: str | None) -> dict[str, Any]:
    """Entries of a part of the county; with a status, so that an index has them in order."""
    return _within(part, "state.address", None) | {
        "document.status": status or {"$in": ["live", "ended"]}
    }


def _when(document: dict[str, Any]) -> tuple[int, int]:
    return document["round"], document["hop"]
