"""A desk's collection, ``docket_<level>``, and the questions that are asked of it."""

from __future__ import annotations

from typing import Any

from services.bus.fold import Record
from services.bus.paging import Cursor
from services.bus.store import MongoStore, database_errors, record_of
from services.grid.scope import Scope


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
            self.collection.create_index([("document.status", 1), ("_id", 1)])

    def of_case(self, case: str) -> list[Record]:
        """The entries of each time that a case came to this desk, the latest last."""
        # Keys begin with the case (entry_key), and ";" comes right after ":".
        with database_errors():
            raws = list(self.collection.find({"_id": {"$gte": f"{case}:", "$lt": f"{case};"}}))
        return [record_of(raw) for raw in sorted(raws, key=lambda raw: _when(raw["document"]))]

    def entries(
        self, part: Scope, status: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of entries, the latest arrival first; see :meth:`MongoStore.page`.

        :param part: a part of the county; the level is this desk's anyway.
        """
        where: dict[str, Any] = {"document.arrived": {"$ne": None}}
        where |= _within(part, "state", status)
        return self.page(where, "document.arrived", cursor, limit)

    def extensions(
        self, part: Scope, status: str | None, cursor: Cursor | None, limit: int
    ) -> tuple[list[Record], str | None]:
        """A page of what the level below asks for, the latest first."""
        where: dict[str, Any] = {"document.asked_in": {"$exists": True}}
        where |= _within(part, "asked_in", status)
        return self.page(where, "document.extension.asked_at", cursor, limit)


def _within(part: Scope, state: str, status: str | None) -> dict[str, Any]:
    where = {
        "document.under": part.division,
        f"document.{state}.address.unit": part.unit,
        "document.status": status,
    }
    return {name: value for name, value in where.items() if value is not None}


def _when(document: dict[str, Any]) -> tuple[int, int]:
    return document["round"], document["hop"]
