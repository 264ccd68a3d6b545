"""Lists have just what a scope covers: the queries on MongoDB agree with the rule."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from services.bus.access import Guard
from services.bus.auth import Identity
from services.dispatch.store import Docket
from services.grid.atlas import Atlas
from services.grid.directory import Directory, Division
from services.grid.scope import WHOLE, Scope
from services.grid.tokens import Address
from services.intake.store import Register

TOWN, HERE, THERE = "469002104", "469002104214", "469002104205"
GROUP, GRID = f"{HERE}03", f"{HERE}03007"
ATLAS = Atlas(
    Directory(
        [
            Division("469002", "琼海市", "county", None, "county"),
            Division(TOWN, "博鳌镇", "township", "469002", "township"),
            Division(HERE, "沙美村", "village", TOWN, "village"),
            Division(THERE, "朝烈村", "village", TOWN, "village"),
        ]
    ),
    {},
    [],
)
LEVELS = ("household", "group", "village", "township")
DIVISIONS = (GRID, GROUP, HERE, THERE, TOWN)
UNITS = (None, "team", "police")
SCOPES = [
    WHOLE,
    Scope(TOWN),
    Scope(HERE, "village"),
    Scope(HERE, "group"),
    Scope(THERE, "village"),
    Scope(GRID, "household"),
    Scope(HERE, "village", "team"),
    Scope(TOWN, "township", "police"),
    Scope("999999", "township"),
]


def under(*divisions: str) -> list[str]:
    codes = (place.code for division in divisions for place in ATLAS.directory.ancestors(division))
    return list(dict.fromkeys(codes))


def guard(scope: Scope) -> Guard:
    return Guard(Identity("o-1", "officer", scope))


@pytest.fixture
def register(database: Any) -> Register:
    """Cases that happened in one place and are in another, at any level, in any unit."""
    store = Register(database[Register.name])
    store.ensure_indexes()
    documents = []
    for number, (level, happened, division, unit) in enumerate(
        product(LEVELS, (GRID, THERE), DIVISIONS, UNITS)
    ):
        address = Address(level, division, unit).as_dict()
        documents.append(
            {
                "_id": f"{number:03d}",
                "revision": 1,
                "document": {
                    "case": f"{number:03d}",
                    "tracking": f"{number:03d}",
                    "facts": {"division": happened, "reported_at": f"{number:03d}"},
                    "state": {"address": address},
                    "under": under(happened, division),
                },
            }
        )
    store.collection.insert_many(documents)
    return store


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_the_register_lists_what_may_be_read(register: Register, scope: Scope) -> None:
    part = guard(scope).narrowed(ATLAS, None)
    levels = None if part.level is None else sorted(ATLAS.levels_up_to(part.level))
    filters = {"division": part.division, "levels": levels, "unit": part.unit}
    listed, _ = register.cases(filters, None, 200)

    def readable(document: dict[str, Any]) -> bool:
        address = Address.of(document["state"]["address"])
        places = address.where(document["facts"]["division"])
        return any(scope.covers(place, ATLAS) for place in places)

    everything = [raw["document"] for raw in register.collection.find()]
    wanted = {document["case"] for document in everything if readable(document)}
    assert {record.key for record in listed} == wanted
    assert bool(wanted) == (scope.division != "999999")


@pytest.mark.parametrize("scope", SCOPES, ids=str)
@pytest.mark.parametrize("level", ["village", "township"])
def test_a_docket_lists_what_may_be_acted_upon(database: Any, level: str, scope: Scope) -> None:
    store = Docket(database[f"docket_{level}"])
    store.ensure_indexes()
    addresses = [Address(level, *place) for place in product(DIVISIONS, UNITS)]
    store.collection.insert_many(
        [
            {
                "_id": f"{number:03d}:1.0",
                "revision": 1,
                "document": {
                    "arrived": f"{number:03d}",
                    "status": "live",
                    "under": under(address.division),
                    "state": {"address": address.as_dict()},
                },
            }
            for number, address in enumerate(addresses)
        ]
    )
    listed, _ = store.entries(guard(scope).narrowed(ATLAS, None), "live", None, 200)
    found = {Address.of((record.document or {})["state"]["address"]) for record in listed}
    if scope.covers_level(level, ATLAS):
        assert found == {address for address in addresses if scope.covers(address, ATLAS)}
