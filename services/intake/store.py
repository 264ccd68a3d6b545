"""Intake's collections: ``register``, ``timeline``, ``happenings``, ``reporters``, ``rejected``."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from string import digits
from typing import Any, NamedTuple

from cryptography.fernet import Fernet, InvalidToken
from pymongo import ReplaceOne, ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from services.bus.errors import DatabaseAway
from services.bus.fold import Record
from services.bus.paging import Cursor
from services.bus.store import MongoStore, database_errors, page_of, unstorable
from services.grid import json
from services.grid.clock import Instant, plus
from services.grid.events import Event

_DUPLICATE = 11000
_COUNTRY = re.compile(r"^(00)?86(?=1[3-9][0-9]{9}$|0?[1-9][0-9]{8,10}$)")


class BoardFilter(NamedTuple):
    """Which cases a notice board shows: in ``division``, but not ``without`` parts of it."""

    division: str
    without: tuple[str, ...]
    statuses: tuple[str, ...]
    categories: tuple[str, ...]
    since: Instant


class Listing(NamedTuple):
    """Which cases a list shows: those whose ``time`` lies in a period, both ends included.

    ``time`` is a field of the record; ``by`` who reported it, ``under`` a division in which it
    happened or is, ``board`` what its board opens.
    """

    time: str
    since: Instant
    until: Instant
    by: str | None = None
    under: str | None = None
    board: BoardFilter | None = None
    statuses: Sequence[str] | None = None
    categories: Sequence[str] | None = None


REPORTED, ENDED = "facts.reported_at", "state.resolution.at"
"""Times of a record."""


class Register(MongoStore):
    """The register (台账): one record a case."""

    name = "register"

    def ensure_indexes(self) -> None:
        """Tracking codes are unique; lists are read by time, all or of a division or status."""
        super().ensure_indexes()
        with database_errors():
            self.collection.create_index("document.tracking", unique=True)
            by_time = [("document.facts.reported_at", -1), ("_id", -1)]
            self.collection.create_index(by_time)
            self.collection.create_index([("document.under", 1), *by_time])
            self.collection.create_index([("document.status", 1), *by_time])
            self.collection.create_index([("document.report.by", 1), *by_time])
            self.collection.create_index([("document.state.token.stage", 1), ("_id", 1)])
            self.collection.create_index("document.close_due")
            self.collection.create_index("document.inbound", unique=True, sparse=True)
            self.collection.create_index([("document.report.by", 1), ("document.status", 1)])
            ended = [("document.state.resolution.at", -1), ("_id", -1)]
            self.collection.create_index([("document.under", 1), *ended])
            self.collection.create_index(
                [("document.under", 1), ("document.facts.category", 1), *by_time]
            )

    def by_tracking(self, code: str) -> dict[str, Any] | None:
        """The document with this tracking code."""
        with database_errors():
            raw = self.collection.find_one({"document.tracking": code})
        return None if raw is None else dict(raw["document"])

    def cases(
        self, filters: dict[str, Any], cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of cases, the latest report first; see :meth:`MongoStore.page`.

        ``filters``: any of division (with all below it), status, level, category,
        reported_from, reported_to (not included); levels (one of them), unit, by (who reported).
        """
        where: dict[str, Any] = {}
        for name, field in (
            ("division", "under"),
            ("status", "status"),
            ("level", "state.address.level"),
            ("category", "facts.category"),
            ("unit", "state.address.unit"),
            ("by", "report.by"),
        ):
            if filters.get(name) is not None:
                where[f"document.{field}"] = filters[name]
        if filters.get("levels") is not None and filters.get("level") is None:
            where["document.state.address.level"] = {"$in": filters["levels"]}
        times = {
            operator: filters[name]
            for operator, name in (("$gte", "reported_from"), ("$lt", "reported_to"))
            if filters.get(name) is not None
        }
        if times:
            where["document.facts.reported_at"] = times
        return self.page(where, "document.facts.reported_at", cursor, limit)

    def by_inbound(self, references: Sequence[str]) -> dict[str, str]:
        """The cases of these ``<system>:<reference>``, as far as there are any."""
        where = {"document.inbound": {"$in": list(references)}}
        with database_errors():
            found = self.collection.find(where, {"document.inbound": 1})
            return {raw["document"]["inbound"]: raw["_id"] for raw in found}

    def open_of(self, subject: str, most: int) -> int:
        """How many cases that ``subject`` reported are open, counted up to ``most``."""
        where = {
            "document.report.by": subject,
            "document.status": {"$in": ["reported", "acknowledged"]},
        }
        with database_errors():
            return self.collection.count_documents(where, limit=most)

    def due(self, now: Instant, limit: int) -> list[str]:
        """Resolved cases whose reporter has not answered by ``now``, the longest due first."""
        where = {"document.close_due": {"$lte": now}}
        with database_errors():
            found = self.collection.find(where, {"_id": 1}).sort("document.close_due")
            return [raw["_id"] for raw in found.limit(limit)]

    def next_due(self) -> Instant | None:
        """When the next resolved case is due to be closed, or none if none is."""
        where = {"document.close_due": {"$gt": ""}}
        with database_errors():
            raw = self.collection.find_one(
                where, {"document.close_due": 1}, sort=[("document.close_due", 1)]
            )
        return None if raw is None else Instant(raw["document"]["close_due"])

    def like(
        self, division: str, at: Instant, within: float, limit: int, category: str | None = None
    ) -> list[dict[str, Any]]:
        """Cases in a division that were reported within so many seconds of ``at``.

        The nearest in time, at most ``limit`` before and as many after; none that was withdrawn.
        Of each just what it takes to compare and to show it.

        :param category: only those of this one.
        """
        found = []
        parts = ("case", "facts", "state.address", "status", "report.description")
        for order, limits in (
            (-1, {"$gte": plus(at, -within), "$lte": at}),
            (1, {"$gt": at, "$lte": plus(at, within)}),
        ):
            where = {
                "document.under": division,
                **({} if category is None else {"document.facts.category": category}),
                "document.facts.reported_at": limits,
                "document.status": {"$ne": "withdrawn"},
            }
            by_time = [("document.facts.reported_at", order), ("_id", order)]
            with database_errors():
                shown = {f"document.{part}": 1 for part in parts}
                found += list(self.collection.find(where, shown).sort(by_time).limit(limit))
        return [raw["document"] for raw in found]

    def ended(
        self, where: BoardFilter, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of cases for the notice board, the last resolved first."""
        return self.page(_opened(where), "document.state.resolution.at", cursor, limit)

    def listed(self, where: Listing, skip: int, limit: int, *, order: int) -> list[dict[str, Any]]:
        """Cases in the order of their time: 1, or -1 for the latest first."""
        conditions: list[dict[str, Any]] = [
            {f"document.{where.time}": {"$gte": where.since, "$lte": where.until}}
        ]
        for field, value in (
            ("report.by", where.by),
            ("under", where.under),
            ("status", where.statuses and {"$in": list(where.statuses)}),
            ("facts.category", where.categories and {"$in": list(where.categories)}),
        ):
            if value is not None:
                conditions.append({f"document.{field}": value})
        if where.board is not None:
            conditions.append(_opened(where.board))
        by_time = [(f"document.{where.time}", order), ("_id", order)]
        with database_errors():
            found = self.collection.find({"$and": conditions}).sort(by_time)
            return [raw["document"] for raw in found.skip(skip).limit(limit)]


def _opened(where: BoardFilter) -> dict[str, Any]:
    """The conditions of a notice board."""
    return {
        "document.under": {"$eq": where.division, "$nin": list(where.without)},
        "document.status": {"$in": list(where.statuses)},
        "document.facts.category": {"$in": list(where.categories)},
        "document.state.resolution.at": {"$gte": where.since},
    }


class Happenings:
    """What happened to the cases of other systems, for those who ask for it in turn.

    Entries are as :mod:`services.intake.happenings` makes them; appended and never changed.
    """

    name = "happenings"

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """A system's in the order in which they were heard of."""
        with database_errors():
            self._collection.create_index([("by", 1), ("at", 1), ("_id", 1)])

    def keep(self, entries: Sequence[dict[str, Any]]) -> None:
        """Adds those that are not there yet."""
        with database_errors():
            try:
                self._collection.insert_many(entries, ordered=False)
            except BulkWriteError as error:
                details = error.details or {}
                codes = {failed["code"] for failed in details.get("writeErrors", ())}
                if codes != {_DUPLICATE} or details.get("writeConcernErrors"):
                    raise

    def of(
        self, by: str, since: Instant, until: Instant, skip: int, limit: int
    ) -> list[dict[str, Any]]:
        """A system's of a period, both ends included, the first first."""
        where = {"by": by, "at": {"$gte": since, "$lte": until}}
        with database_errors():
            found = self._collection.find(where).sort([("at", 1), ("_id", 1)])
            return list(found.skip(skip).limit(limit))


class Timeline:
    """The timeline (流转记录): every event of a case, appended and never changed."""

    name = "timeline"

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """A case's events in their order, and all in that in which they came."""
        with database_errors():
            self._collection.create_index([("case", 1), ("time", 1), ("_id", 1)])
            self._collection.create_index([("received", 1), ("_id", 1)])

    def append(self, events: Sequence[Event], received: Instant) -> list[Event]:
        """Adds those events that are not there yet, and returns them."""
        known: set[str] = set()
        documents = {
            event.id: {
                "_id": event.id,
                "case": event.subject,
                "type": event.type,
                "version": event.version,
                "time": event.time,
                "received": received,
                "source": event.source,
                "key": event.key,
                "traceparent": event.traceparent,
                "data": event.data,
                **({"extensions": event.extensions} if event.extensions else {}),
            }
            for event in events
        }
        if not documents:
            return []
        with database_errors():
            try:
                self._collection.insert_many(list(documents.values()), ordered=False)
            except BulkWriteError as error:
                details = error.details or {}
                failures = details.get("writeErrors", ())
                known = {failed["op"]["_id"] for failed in failures}
                others = [failed for failed in failures if failed["code"] != _DUPLICATE]
                if others:
                    raise unstorable(others[0]["errmsg"]) from error
                if details.get("writeConcernErrors"):
                    raise DatabaseAway(f"MongoDB: {error}") from error
        return [
            event
            for event in {event.id: event for event in events}.values()
            if event.id not in known
        ]

    def of(
        self, case: str, cursor: Cursor | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of a case's events in the order of their time, and the next page's cursor."""
        where: dict[str, Any] = {"case": case}
        if cursor is not None:
            later = {"time": cursor.value, "_id": {"$gt": cursor.key}}
            where["$or"] = [{"time": {"$gt": cursor.value}}, later]
        with database_errors():
            found = self._collection.find(where).sort([("time", 1), ("_id", 1)])
            raws = list(found.limit(limit + 1))
        if len(raws) <= limit:
            return raws, None
        last = raws[limit - 1]
        return raws[:limit], Cursor(last["time"], last["_id"]).text()

    def since(self, received: Instant, key: str, limit: int) -> list[dict[str, Any]]:
        """The next entries behind ``(received, key)``, in the order in which they came."""
        later = {"received": received, "_id": {"$gt": key}}
        where = {"$or": [{"received": {"$gt": received}}, later]}
        with database_errors():
            found = self._collection.find(where).sort([("received", 1), ("_id", 1)])
            return list(found.limit(limit))

    def received(self, event: str) -> Instant | None:
        """When intake heard of this event, if it has."""
        with database_errors():
            raw = self._collection.find_one({"_id": event}, {"received": 1})
        return None if raw is None else Instant(raw["received"])


def phone_digits(text: str) -> str:
    """The digits of a phone number, without the country's: one person, however it is written."""
    found = "".join(char for char in unicodedata.normalize("NFKC", text) if char in digits)
    return _COUNTRY.sub("", found)


class Reporters:
    """Keys of reporters, one a person, sealed with the service's own key.

    What a reporter told about themselves is encrypted with their key and kept with the case;
    without the key, which :meth:`shred` deletes, nobody can read it any more.
    """

    name = "reporters"

    def __init__(self, collection: Collection[dict[str, Any]], seal_key: str) -> None:
        self._collection = collection
        self._secret = seal_key.encode()
        self._seal = Fernet(self._secret)

    def digest(self, value: Any) -> str:
        """A keyed digest: tells whether two values are the same, and nothing else."""
        return hmac.new(self._secret, json.dumps(value), hashlib.sha256).hexdigest()

    def seal(self, reporter: dict[str, Any], case: str) -> dict[str, str]:
        """``{reference, sealed}`` of what a person told about themselves.

        The reference is the same for the same phone number, so that all that a person ever
        reported is shredded together; without one it is the case's own.
        """
        phone = phone_digits(reporter.get("phone", ""))
        reference = self.digest(["phone", phone] if phone else ["case", case])
        wrapped = self._seal.encrypt(Fernet.generate_key()).decode()
        with database_errors():
            self._collection.update_one(
                {"_id": reference}, {"$setOnInsert": {"key": wrapped}}, upsert=True
            )
            # Who was forgotten once gets a new key for what they report from now on.
            self._collection.update_one({"_id": reference, "key": None}, {"$set": {"key": wrapped}})
            raw = self._collection.find_one({"_id": reference}) or {"key": wrapped}
        sealed = self._key(raw["key"]).encrypt(json.dumps(reporter)).decode()
        return {"reference": reference, "sealed": sealed}

    def open(self, sealed: dict[str, str]) -> dict[str, Any] | None:
        """What the person told, or none if it was shredded.

        :raises cryptography.fernet.InvalidToken: SEAL_KEY is not the one it was sealed with.
        """
        with database_errors():
            raw = self._collection.find_one({"_id": sealed["reference"]})
        if raw is None or raw["key"] is None:
            return None
        key = self._key(raw["key"])
        try:
            reporter: dict[str, Any] = json.loads(key.decrypt(sealed["sealed"].encode()))
        except InvalidToken:
            # Sealed with a key that was shredded since.
            return None
        return reporter

    def shred(self, reference: str) -> None:
        """Deletes the key of a reporter; what it sealed can't be read any more."""
        with database_errors():
            self._collection.update_one({"_id": reference}, {"$set": {"key": None}})

    def _key(self, wrapped: str) -> Fernet:
        return Fernet(self._seal.decrypt(wrapped.encode()))


class Rejected:
    """What other systems sent in vain: the latest thousand of each, without what was in it.

    A system's entries are a ring, so that one that sends nothing but rubbish fills nothing: the
    service has no right to delete.
    """

    name = "rejected"
    most = 1000

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Lists are read by time, all or a system's."""
        with database_errors():
            self._collection.create_index([("at", -1), ("_id", -1)])
            self._collection.create_index([("system", 1), ("at", -1), ("_id", -1)])

    def keep(self, system: str, entries: Sequence[dict[str, Any]]) -> None:
        """Keeps entries ``{door, at, event}``, in the place of the oldest."""
        latest = entries[-self.most :]
        with database_errors():
            ring = self._collection.find_one_and_update(
                {"_id": f"ring:{system}"},
                {"$inc": {"next": len(latest)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            first = (ring or {"next": len(latest)})["next"] - len(latest)
            self._collection.bulk_write(
                [
                    ReplaceOne(
                        {"_id": f"{system}:{(first + number) % self.most:03}"},
                        {"system": system, **entry},
                        upsert=True,
                    )
                    for number, entry in enumerate(latest)
                ],
                ordered=False,
            )

    def page(
        self, system: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of entries, the latest first, and the cursor of the next page."""
        where: dict[str, Any] = {"at": {"$gt": ""}}
        if system is not None:
            where["system"] = system
        raws, following = page_of(self._collection, where, "at", cursor, limit)
        names = ("system", "at", "door", "event")
        return [
            {"id": raw["_id"], **{name: raw[name] for name in names}} for raw in raws
        ], following
