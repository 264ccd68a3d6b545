"""What the reconciler calls a disagreement, what it leaves alone, and that a repair is guarded."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus.errors import Defer
from services.bus.fold import Record, Unpublished
from services.dispatch import calls
from services.escalation import model, reconciliation
from services.escalation.reconciliation import Finding, Page, Place
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.directory import Directory
from services.grid.events import Event
from services.grid.tokens import Token
from tests.simulator.county import atlas
from tests.simulator.world import World

ATLAS = atlas()
NOW = FrozenClock().now()
CASE = "case-1"
AT = Place(CASE, 1, 0)
HELD = {"round": 1, "stage": "held", "hop": 0, "seq": 0}


def reported() -> Event:
    world = World(ATLAS)
    world.report(CASE)
    return Event.read(world.published[0].body)


def custody(token: dict[str, Any] | None = None, **changes: Any) -> Record:
    document = model.decide(model.merge(None, reported(), NOW), ATLAS, NOW).document
    assert document is not None
    state = {**document["state"], "token": {**HELD, **(token or {})}}
    return Record(CASE, 1, {**document, "state": state, **changes})


def known(**token: Any) -> dict[str, Any]:
    """What the register says."""
    return {"case": CASE, "token": {**HELD, **token}, "unpublished": False}


def entry(status: str = "live", **token: Any) -> dict[str, Any]:
    """What the household's desk says."""
    return {
        **{"case": CASE, "round": 1, "hop": 0, "key": "case-1:1.0"},
        "status": status,
        "ended": None if status == "live" else "custody",
        "token": {**HELD, **token},
        "address": reported().data["state"]["address"],
        "unpublished": False,
    }


def compare(
    held: Record | None, register: Any = ..., household: Any = ..., now: Instant = NOW
) -> list[str]:
    page = Page(
        {CASE: held},
        {} if register is ... else {CASE: register},
        {} if household is ... else {"household": {AT: household}},
    )
    return [finding.kind for finding in reconciliation.compare(page, ATLAS, now, 300)]


RESOLVED = {"stage": "resolved", "seq": 2}
LATER_HOP = {"hop": 1}


@pytest.mark.parametrize(
    ("held", "register", "household", "kinds"),
    [
        (custody(), known(), entry(), []),
        (custody(), ..., ..., []),
        (custody(next_due=None), known(), entry(), ["unarmed"]),
        (custody(next_due="2999-01-01T00:00:00.000Z"), ..., ..., ["unarmed"]),
        (custody(next_due=plus(NOW, 7200 + 200)), ..., ..., []),
        (custody(RESOLVED, next_due=None), known(**RESOLVED), ..., []),
        (None, known(), ..., ["custody_missing"]),
        (None, ..., entry(), ["custody_missing"]),
        (None, ..., entry("ended"), []),
        (None, {**known(), "unpublished": True}, ..., []),
        (custody(), known(seq=1), ..., ["custody_behind"]),
        (custody(), known(**RESOLVED), ..., ["custody_behind"]),
        (custody(), ..., entry(seq=1), ["custody_behind"]),
        (custody(), ..., entry("ended", **RESOLVED), ["custody_behind"]),
        (custody(), None, ..., ["register_behind"]),
        (custody({"seq": 1}), known(), ..., ["register_behind"]),
        (custody(RESOLVED), known(), ..., ["register_behind"]),
        (custody(), ..., None, ["entry_missing"]),
        (custody(), ..., {**entry(), "token": None, "address": None}, ["entry_missing"]),
        (custody({"seq": 1}), ..., entry(), ["entry_behind"]),
        (custody(RESOLVED), ..., entry(), ["entry_behind"]),
        (custody(), ..., entry("ended"), ["entry_ended"]),
        (custody(LATER_HOP), ..., entry(), ["entry_stale"]),
        (custody(LATER_HOP), ..., entry("ended"), []),
        (custody({"stage": "withdrawn"}), ..., entry(), ["entry_stale"]),
        (custody({"seq": 1}), known(), {**entry(), "unpublished": True}, ["register_behind"]),
    ],
)
def test_what_is_a_finding(
    held: Record | None, register: Any, household: Any, kinds: list[str]
) -> None:
    assert compare(held, register, household) == kinds


def test_what_the_custodian_has_not_published_yet_is_its_sweeps() -> None:
    told = (Unpublished(reported(), 0.0),)
    held = Record(CASE, 1, custody({"seq": 1}).document, told)
    assert compare(held, known(), entry()) == []
    assert compare(held, None, None) == []


def test_a_case_that_waits_for_nothing_is_not_unarmed() -> None:
    """The last level's deadline passed and its profile has no repeats."""
    document = custody(next_due=None).document or {}
    state = {**document["state"], "deadlines": []}
    assert compare(Record(CASE, 1, {**document, "state": state})) == []


def test_of_two_that_know_better_the_furthest_counts() -> None:
    one = Finding("custody_behind", CASE, Token.of(HELD), Token.of({**HELD, "seq": 1}))
    two = Finding("custody_behind", CASE, Token.of(HELD), Token.of({**HELD, "seq": 2}), "group")
    other = Finding("unarmed", CASE, Token.of(HELD))
    assert reconciliation.one_source([one, other, two]) == [two, other]


def test_a_repair_of_what_has_moved_on_does_nothing() -> None:
    for kind in reconciliation.KINDS:
        finding = Finding(kind, CASE, Token.of(HELD), None, "household", AT)
        decision = reconciliation.repair(finding, ATLAS, NOW).change(custody({"seq": 3}))
        assert (decision.document, list(decision.events), decision.answer) == (None, [], False)


def test_arming_again_is_done_once_and_told() -> None:
    broken = custody(next_due=None)
    finding = Finding("unarmed", CASE, Token.of(HELD))
    decision = reconciliation.repair(finding, ATLAS, NOW).change(broken)
    assert decision.document == custody().document
    assert [event.data["found"] for event in decision.events] == ["unarmed"]
    again = reconciliation.repair(finding, ATLAS, NOW).change(Record(CASE, 2, decision.document))
    assert (again.document, list(again.events)) == (None, [])


def test_each_time_that_something_is_sent_again_is_an_event_of_its_own() -> None:
    finding = Finding("entry_missing", CASE, Token.of(HELD), None, "household", AT)

    def sent(now: Instant) -> Event:
        (event,) = reconciliation.repair(finding, ATLAS, now).change(custody()).events
        return event

    assert sent(NOW) == sent(NOW)
    assert sent(NOW).id != sent(plus(NOW, 1)).id
    assert not sent(NOW).custody, "it gives no level more time"
    assert sent(NOW).key.startswith("case.reconciled.household.")


def test_an_entry_that_knows_of_a_later_hop_gives_way_to_one_that_is_later_still() -> None:
    """Custody was restored, and that hop was lost at its own desk as well."""
    later = {**HELD, "hop": 4}
    page = Page({CASE: custody()}, {}, {"household": {AT: {**entry("ended"), "held": later}}})
    (finding,) = reconciliation.compare(page, ATLAS, NOW, 300)
    assert (finding.kind, finding.over) == ("entry_ended", Token.of(later))
    decision = reconciliation.repair(finding, ATLAS, NOW).change(custody())
    types = [event.type for event in decision.events]
    assert types == ["case.transferred", "case.released", "case.reconciled"]
    assert decision.events[0].data["reason"] == "reconciled"
    state = (decision.document or {})["state"]
    assert state["token"] == {**HELD, "hop": 5}
    assert state["address"] == reported().data["state"]["address"]
    assert state["deadlines"] == reported().data["state"]["deadlines"]
    # A resolution of an earlier hop is later too: the new one is beyond both.
    over = Token.of({**HELD, "stage": "resolved", "hop": 0})
    held = custody({"hop": 2})
    finding = Finding("entry_ended", CASE, Token.of({**HELD, "hop": 2}), over=over)
    decision = reconciliation.repair(finding, ATLAS, NOW).change(held)
    assert (decision.document or {})["state"]["token"] == {**HELD, "hop": 3}
    # What it has heard of since is no reason any more.
    page = Page({CASE: custody({"hop": 5})}, {}, {"household": {AT: {**entry(), "held": later}}})
    assert [item.over for item in reconciliation.compare(page, ATLAS, NOW, 300)] == [None]


def test_a_repair_waits_for_a_profile_that_has_not_arrived() -> None:
    empty = Atlas(Directory(divisions=(), units=(), officers=()), {}, [])
    finding = Finding("unarmed", CASE, Token.of(HELD))
    with pytest.raises(Defer):
        reconciliation.repair(finding, empty, NOW).change(custody(next_due=None))


def merged() -> tuple[Record, Record]:
    """The custody of an older case and of the one that follows it."""
    world = World(ATLAS)
    for number in (1, 2):
        world.report(f"case-{number}")
        world.settle()
        world.clock.advance(60)
    assert world.merge(("case-1", "case-2"))
    world.settle()
    known = world.nodes["escalation"].store.read(["case-1", "case-2"])
    return known["case-1"], known["case-2"]


def changed(record: Record, **parts: Any) -> Record:
    return Record(record.key, record.revision, {**(record.document or {}), **parts})


OLDER, YOUNGER = merged()
SINCE = {"round": 1, "hop": 1, "urgency": "ordinary"}
TOLD = {"case": "case-1", "round": 1, "resolution": {}, "told": None}


def left(why: str | None, hop: int = 1) -> Record:
    return changed(OLDER, followers={"case-2": {**SINCE, "hop": hop, "left": why}})


@pytest.mark.parametrize(
    ("lead", "follower", "is_found"),
    [
        (OLDER, YOUNGER, False),
        (changed(OLDER, followers={}), YOUNGER, True),
        (left(None, hop=0), YOUNGER, True),
        (left("moved"), YOUNGER, True),
        (left("withdrawn"), YOUNGER, True),
        (left("left"), YOUNGER, True),
        (left("resolved"), YOUNGER, True),
        (left("resolved"), changed(YOUNGER, lead=TOLD), False),
        (OLDER, changed(YOUNGER, following=None), True),
        (None, YOUNGER, False),
        (
            Record(
                "case-1",
                1,
                (OLDER.document or {}) | {"followers": {}},
                (Unpublished(reported(), 0.0),),
            ),
            YOUNGER,
            False,
        ),
    ],
)
def test_a_follower_that_one_of_the_two_has_forgotten(
    lead: Record | None, follower: Record, is_found: bool
) -> None:
    page = Page({"case-2": follower}, leads={"case-1": lead})
    kinds = [item.kind for item in reconciliation.compare(page, ATLAS, NOW, 300)]
    assert kinds == (["follower_forgotten"] if is_found else [])
    # Of whom nobody was asked nothing is said.
    assert reconciliation.compare(Page({"case-2": follower}), ATLAS, NOW, 300) == []


def test_a_forgotten_follower_follows_anew_in_a_hop_where_it_is() -> None:
    page = Page({"case-2": YOUNGER}, leads={"case-1": changed(OLDER, followers={})})
    (finding,) = reconciliation.compare(page, ATLAS, NOW, 300)
    decision = reconciliation.repair(finding, ATLAS, NOW).change(YOUNGER)
    assert decision.answer is True
    types = [event.type for event in decision.events]
    assert types == ["case.transferred", "case.followed", "case.released", "case.reconciled"]
    said = decision.events[1].data["following"]
    assert (said["case"], said["by"], said["since"]) == (
        "case-1",
        "custodian",
        {"round": 1, "hop": 2},
    )
    before, after = (YOUNGER.document or {})["state"], (decision.document or {})["state"]
    assert {**after, "token": 0} == {**before, "token": 0}
    # Once more it does nothing: it has moved on.
    again = reconciliation.repair(finding, ATLAS, NOW).change(
        Record("case-2", 2, decision.document)
    )
    assert (again.document, again.answer) == (None, False)


CALL = {
    **{"id": "call-1", "round": 1, "hop": 0, "level": "village", "division": "469002104214"},
    **{"unit": "team", "lead": True, "by": "v-1", "at": NOW, "reason": "联合处置"},
    **{"supervise": "all", "released": None},
    **{
        kind: {"kind": kind, "due": plus(NOW, 3600), "rule": "r", "source": "s"}
        for kind in ("check_in", "finish")
    },
}
DONE = {"by": "t-1", "at": NOW, "note": "已到"}


def calling(**known: Any) -> Record:
    state = {**(custody().document or {})["state"], "joined": [CALL]}
    own = {"call": CALL, "fires": {}, "sent": True, "ended": None}
    calls = {"call-1": {**own, "checked_in": None, "finished": None, "missed": [], **known}}
    return custody(state=state, calls=calls)


@pytest.mark.parametrize(
    ("held", "known", "kinds"),
    [
        (calling(), True, []),
        (calling(), None, []),
        (calling(), False, ["call_missing"]),
        (calling(sent=False), False, []),
        (custody(), False, []),
    ],
)
def test_a_call_that_the_units_desk_has_forgotten(
    held: Record, known: bool | None, kinds: list[str]
) -> None:
    calls = {} if known is None else {"village": {"call-1": known}}
    page = Page({CASE: held}, calls=calls)
    assert [item.kind for item in reconciliation.compare(page, ATLAS, NOW, 300)] == kinds


def test_a_unit_is_called_again_with_what_it_did() -> None:
    held = calling(checked_in=DONE)
    (finding,) = reconciliation.compare(
        Page({CASE: held}, calls={"village": {"call-1": False}}), ATLAS, NOW, 300
    )
    decision = reconciliation.repair(finding, ATLAS, NOW).change(held)
    called, said = decision.events
    assert (called.type, said.data["found"]) == ("case.called", "call_missing")
    assert called.key.startswith("case.called.village.")
    assert called.data["progress"]["checked_in"] == DONE
    entry = calls.merge(None, Event.read(called.body()))
    assert (entry["checked_in"], entry["status"]) == (DONE, "checked_in")
    # Who is released meanwhile is called no more.
    gone = {**CALL, "released": {"by": "v-1", "at": NOW, "score": None, "note": ""}}
    state = {**(held.document or {})["state"], "joined": [gone]}
    decision = reconciliation.repair(finding, ATLAS, NOW).change(changed(held, state=state))
    assert (decision.document, decision.answer) == (None, False)
