"""The audit trail: from where a request came, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest

from services.bus.audit import Auditor, Request, Trail, sender
from services.bus.auth import Identity
from services.grid.clock import FrozenClock
from services.grid.scope import Scope

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
CASE = "7b0f2a80-1381-2345-8678-138123456789"
STATE = {
    "token": {"round": 1, "stage": "held", "hop": 0, "seq": 1},
    "address": {"level": "village", "division": "469002104214", "unit": None},
    "resolution": {"note": "SECRET"},
}


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        # Who is no proxy may say what they like.
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "198.51.100.7, 203.0.113.9, 10.2.2.2", "203.0.113.9"),
        ("10.1.1.1", "10.3.3.3", "10.3.3.3"),
        ("fd00::1", "2001:db8::9", "2001:db8::9"),
        ("10.1.1.1", "unknown", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.9, <script>", "10.1.1.1"),
        ("10.1.1.1", ",,", "10.1.1.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_from_where_a_request_came(peer: str, forwarded: str, address: str) -> None:
    assert sender(peer, forwarded, PROXIES) == address


class Kept:
    """A keeper whose entries the test looks at."""

    def __init__(self) -> None:
        self.entries: list[Mapping[str, Any]] = []

    def append(self, entry: Mapping[str, Any]) -> None:
        self.entries.append(entry)

    def page(self, filters: Any, cursor: Any, limit: int) -> tuple[list[dict[str, Any]], None]:
        raise NotImplementedError


def kept(trail: Trail, **target: str) -> Mapping[str, Any]:
    store, clock = Kept(), FrozenClock()
    asked = Request("POST", "/v1/cases/<case>/x", target, "192.0.2.1", None, None)
    officer = Identity("o-1", "officer", Scope("469002104214", "village"))
    Auditor(store, clock).done(asked, officer, trail, 200)
    (entry,) = store.entries
    assert entry["at"] == clock.now()
    return entry


def test_what_changed_is_where_the_case_stood_and_no_more() -> None:
    after = {**STATE, "token": {**STATE["token"], "stage": "resolved", "seq": 2}}
    trail = Trail()
    trail.changed({"case": CASE, "state": STATE}, {"case": CASE, "state": after, "status": "ended"})
    entry = kept(trail, case=CASE)
    assert entry["cases"] == [CASE]
    (change,) = entry["changes"]
    assert change["before"]["token"]["seq"] == 1
    assert change["after"] == {
        "token": {"round": 1, "stage": "resolved", "hop": 0, "seq": 2},
        "address": STATE["address"],
        "status": "ended",
    }
    assert "SECRET" not in str(entry)


def test_an_extension_stands_where_the_asking_desk_did() -> None:
    asked = {"case": CASE, "state": None, "asked_in": STATE, "status": "asked"}
    trail = Trail()
    trail.changed(asked, {**asked, "status": "granted"})
    entry = kept(trail, identity="x")
    assert [entry["changes"][0][when]["status"] for when in ("before", "after")] == [
        "asked",
        "granted",
    ]
    assert entry["cases"] == [CASE]


def test_what_opened_has_no_before_and_what_is_no_case_no_change() -> None:
    trail = Trail()
    trail.changed(None, {"case": CASE, "state": STATE})
    trail.changed(None, None)
    trail.changed(None, {"webhook": "https://secret"})
    entry = kept(trail)
    assert [change["before"] for change in entry["changes"]] == [None]


def test_a_number_in_a_path_is_not_kept_but_every_case_is() -> None:
    # A case id may have a mobile number's digits in it.
    assert kept(Trail(), case=CASE)["cases"] == [CASE]
    entry = kept(Trail(), case="138-1234-5678", recipient="x" * 500)
    assert entry["target"]["case"] == "(a number)"
    assert len(entry["target"]["recipient"]) == 120
