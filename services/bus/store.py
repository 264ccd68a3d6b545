"""Documents in MongoDB: one query to read a batch, one guarded bulk to write it.

A record is ``{_id, revision, document, unpublished: [{written, custody, event}], confirmed}``.
Every write names the revision that it read, and inserts if there is no such document, so that
a guard that fails shows as a duplicate ``_id``, for each document by itself. One that read
none is a plain insert: MongoDB does these together, several times as fast as upserts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bson.errors import InvalidDocument
from pymongo import InsertOne, MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

from services.bus.errors import Collision, DatabaseAway, Reject
from services.bus.fold import Record, Unpublished, Write
from services.bus.paging import Cursor
from services.grid.clock import Instant
from services.grid.events import Event

_DUPLICATE = 11000
_PATIENCE_MS = 5_000
# A document is too large (BSONObj size, two kinds of it), or holds what MongoDB can't keep.
_UNSTORABLE = frozenset({2, 22, 10334, 17419, 17420})


def connect(uri: str, application: str) -> Database[dict[str, Any]]:
    """The database that ``uri`` names; nothing is asked of the server yet.

    Writes are acknowledged by the majority and journalled: what a step acknowledges is kept.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(
        uri,
        appname=application,
        w="majority",
        journal=True,
        # What a read found must not be taken back by a failover after it was acted upon.
        readConcernLevel="majority",
        serverSelectionTimeoutMS=_PATIENCE_MS,
        connectTimeoutMS=_PATIENCE_MS,
        socketTimeoutMS=4 * _PATIENCE_MS,
        tz_aware=True,
    )
    return client.get_default_database()


@contextmanager
def database_errors() -> Iterator[None]:
    """Turns what the driver raises into the exceptions that say what becomes of the input.

    A refusal by the server (a missing right, no primary) is retried like an outage: the
    operator can mend it, and nothing is lost meanwhile.
    """
    try:
        yield
    except (InvalidDocument, DocumentTooLarge, OverflowError) as error:
        raise unstorable(str(error)) from error
    except OperationFailure as error:
        if error.code in _UNSTORABLE:
            raise unstorable(str(error)) from error
        raise DatabaseAway(f"MongoDB: {_short(error)}") from error
    except PyMongoError as error:
        raise DatabaseAway(f"MongoDB: {_short(error)}") from error


def unstorable(why: str) -> Reject:
    """What becomes of an input whose document MongoDB never takes."""
    return Reject("unstorable", f"MongoDB can't keep this document: {why}"[:300])


def _short(error: PyMongoError) -> str:
    # The driver adds the server's whole answer, which is of no use in a log.
    return str(error).partition(", full error")[0]


class MongoStore:
    """A collection of records; see :class:`services.bus.fold.Store` for the contract.

    ``name`` is the collection's; a desk's holds ``{level}``.
    """

    name: str = ""

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self.collection = collection
        # A clearing that a crash undoes is done again by the sweep: it waits for no disk.
        self._unhurried = collection.with_options(write_concern=WriteConcern(w=1, j=False))

    def ensure_indexes(self) -> None:
        """Creates the index that the sweep reads; services add those of their own queries.

        :raises DatabaseAway: the database can't be reached; try again later.
        """
        with database_errors():
            self.collection.create_index("unpublished.written", sparse=True)

    def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """See :class:`services.bus.fold.Store`."""
        with database_errors():
            return {
                raw["_id"]: record_of(raw)
                for raw in self.collection.find({"_id": {"$in": list(keys)}})
            }

    def write(self, writes: Sequence[Write], written: float) -> set[str]:
        """See :class:`services.bus.fold.Store`."""
        operations = [self._operation(write, written) for write in writes]
        with database_errors():
            try:
                self.collection.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return {writes[index].key for index in _conflicts(error)}
        return set()

    def clear(self, published: Mapping[str, Sequence[Event]], at: Instant) -> None:
        """See :class:`services.bus.fold.Store`."""
        custody = {key for key, events in published.items() if any(e.custody for e in events)}
        with database_errors():
            for keys, also in (
                (custody, {"$max": {"confirmed": at}}),
                (published.keys() - custody, {}),
            ):
                ids = [event.id for key in keys for event in published[key]]
                if ids:
                    self._unhurried.update_many(
                        {"_id": {"$in": list(keys)}},
                        {"$pull": {"unpublished": {"event.id": {"$in": ids}}}, **also},
                    )

    def unpublished(self, before: float, limit: int) -> list[Record]:
        """See :class:`services.bus.fold.Store`."""
        with database_errors():
            found = self.collection.find({"unpublished.written": {"$lt": before}})
            return [record_of(raw) for raw in found.sort("unpublished.written").limit(limit)]

    def page(
        self, where: Mapping[str, Any], by: str, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """One page of records, the greatest ``by`` first, and the cursor of the next page.

        :param by: a document field that every record has; an index on it must end in ``_id``.
        """
        raws, following = page_of(self.collection, where, by, cursor, limit)
        return [record_of(raw) for raw in raws], following

    def after(self, where: Mapping[str, Any], key: str, limit: int) -> list[Record]:
        """The next records behind ``key`` in the order of keys; an index must end in ``_id``."""
        with database_errors():
            found = self.collection.find({**where, "_id": {"$gt": key}})
            return [record_of(raw) for raw in found.sort("_id").limit(limit)]

    def ping(self) -> None:
        """Asks the server for a sign of life.

        :raises DatabaseAway: there was none.
        """
        with database_errors():
            self.collection.database.command("ping")

    @staticmethod
    def _operation(write: Write, written: float) -> UpdateOne | InsertOne[dict[str, Any]]:
        state = {"document": write.document, "revision": write.revision + 1}
        unpublished = [
            {"written": written, "custody": event.custody, "event": event.as_document()}
            for event in write.events
        ]
        kept = {"unpublished": unpublished} if unpublished else {}
        if write.revision == 0:
            return InsertOne({"_id": write.key, **state, **kept})
        change: dict[str, Any] = {"$set": state}
        if kept:
            change["$push"] = {"unpublished": {"$each": unpublished}}
        return UpdateOne({"_id": write.key, "revision": write.revision}, change, upsert=True)


def page_of(
    collection: Collection[dict[str, Any]],
    where: Mapping[str, Any],
    by: str,
    cursor: Cursor | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """One page of a collection, the greatest ``by`` first, and the cursor of the next page."""
    conditions: list[Mapping[str, Any]] = [where]
    if cursor is not None:
        conditions.append(
            {
                "$or": [
                    {by: {"$lt": cursor.value}},
                    {by: cursor.value, "_id": {"$lt": cursor.key}},
                ]
            }
        )
    with database_errors():
        found = collection.find({"$and": conditions})
        raws = list(found.sort([(by, -1), ("_id", -1)]).limit(limit + 1))
    if len(raws) <= limit:
        return raws, None
    last: Any = raws[limit - 1]
    for name in by.split("."):
        last = last[name]
    return raws[:limit], Cursor(last, raws[limit - 1]["_id"]).text()


def record_of(raw: Mapping[str, Any]) -> Record:
    """The record of a document as MongoDB returns it."""
    return Record(
        raw["_id"],
        raw["revision"],
        raw["document"],
        tuple(
            Unpublished(Event.of_document(entry["event"]), entry["written"])
            for entry in raw.get("unpublished", ())
        ),
        raw.get("confirmed"),
    )


def _conflicts(error: BulkWriteError) -> list[int]:
    """Which operations of a bulk lost the race for their revision.

    :raises Collision: one broke another unique index.
    :raises Reject: one can't be stored at all.
    :raises DatabaseAway: the write concern was not met.
    """
    details = error.details or {}
    conflicts = []
    for failed in details.get("writeErrors", ()):
        if failed["code"] != _DUPLICATE:
            raise unstorable(failed["errmsg"])
        fields = list(failed.get("keyPattern", {}))
        if fields != ["_id"]:
            raise Collision(fields[0].removeprefix("document.") if fields else "unknown field")
        conflicts.append(failed["index"])
    if details.get("writeConcernErrors"):
        raise DatabaseAway(f"MongoDB: {details['writeConcernErrors'][0]['errmsg']}")
    return conflicts
