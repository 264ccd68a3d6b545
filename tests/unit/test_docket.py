"""A docket keeps more than entries, and a case may be called by any word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.dispatch import calls, model
from services.dispatch.store import Docket


class Collection:
    """What a docket's collection holds, and the one query that is asked of it here."""

    def __init__(self, *documents: tuple[str, dict[str, Any]]) -> None:
        self.raws = [{"_id": key, "revision": 1, "document": item} for key, item in documents]

    def with_options(self, **_options: Any) -> Collection:
        return self

    def find(self, where: dict[str, Any]) -> Iterator[dict[str, Any]]:
        keys, case = where["_id"], where.get("document.case")
        for raw in self.raws:
            if keys["$gte"] <= raw["_id"] < keys["$lt"] and case in (None, raw["document"]["case"]):
                yield raw


@pytest.mark.parametrize(
    ("case", "found"), [("case-1", [0, 1]), ("call", []), ("extension", []), ("case", [])]
)
def test_what_else_is_kept_in_a_docket_is_no_entry_of_a_case(case: str, found: list[int]) -> None:
    one = {"case": "case-1", "round": 1}
    collection: Any = Collection(
        (model.entry_key("case-1", 1, 1), {**one, "hop": 1}),
        (model.entry_key("case-1", 1, 0), {**one, "hop": 0}),
        # A call has no round of its own: who sorted it by that would fail.
        (calls.key("0b9ab4f0"), {"case": "case-1", "state": None}),
        (model.extension_key("0b9ab4f0"), {**one, "hop": 0, "state": None}),
    )
    records = Docket(collection).of_case(case)
    assert [(record.document or {})["hop"] for record in records] == found
