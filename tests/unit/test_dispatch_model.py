"""A desk's decisions: who is on duty, what an officer may do, when an entry ends."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus.errors import Refused, Reject
from services.bus.fold import Decision, Document, Record
from services.dispatch import model
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, plus
from services.grid.events import Event
from tests.simulator.county import GRID, atlas
from tests.simulator.world import World

NOW = FrozenClock().now()
ATLAS = atlas()
HOLD, SKIP = atlas(unstaffed="hold"), atlas(unstaffed="skip")


def reported(county: Atlas = ATLAS, division: str = GRID) -> Event:
    world = World(county)
    world.report("case-1", division=division)
    return Event.read(world.published[0].body)


def arrived(county: Atlas = ATLAS, division: str = GRID) -> Decision:
    merged = model.merge(None, reported(county, division))
    return model.decide(merged, county, NOW)


def entry(county: Atlas = ATLAS) -> Document:
    document = arrived(county).document
    assert document is not None
    return document


def released(why: str = "custody", stage: str = "held") -> Event:
    arrival = reported()
    state = {
        **arrival.data["state"],
        "token": {"round": 1, "stage": stage, "hop": 1, "seq": 0},
        "address": {"level": "group", "division": "46900210421403", "unit": None},
    }
    release = {
        "token": {"round": 1, "stage": "held", "hop": 0, "seq": 0},
        "address": arrival.data["state"]["address"],
        "why": why,
    }
    return Event(
        id="release",
        type="case.released",
        subject="case-1",
        time=NOW,
        source="huashi/escalation",
        data={"case": arrival.data["case"], "state": state, "released": release},
    )


def test_the_officer_on_duty_is_assigned_once() -> None:
    decision = arrived()
    assert [event.type for event in decision.events] == ["case.assigned"]
    document = decision.document
    assert document is not None
    assert document["state"]["assigned"] == {"officer": "h-1", "why": "on duty", "at": NOW}
    assert document["state"]["token"]["seq"] == 1
    assert document["under"][0] == GRID
    again = model.decide(model.merge(document, reported()), ATLAS, plus(NOW, 60))
    assert again.events == ()
    assert again.document == document


def test_a_lead_stands_in_or_the_case_is_held_or_skipped() -> None:
    empty = "46900210421403008"
    (assigned,) = arrived(ATLAS, empty).events
    assert assigned.data["state"]["assigned"]["officer"] == "g-1"
    assert assigned.data["deputy"] is True
    (held,) = arrived(HOLD, empty).events
    assert held.data["state"]["assigned"]["officer"] is None
    assert held.data["unstaffed"] == "hold"
    assigned, requested = arrived(SKIP, empty).events
    assert assigned.data["unstaffed"] == "skip"
    assert requested.type == "case.requested"
    assert requested.data["request"]["action"] == "escalate"
    assert requested.data["request"]["reason"] == "unstaffed"
    assert requested.data["state"]["token"]["seq"] == 1


def test_where_nobody_leads_either_it_waits_unassigned() -> None:
    (assigned,) = arrived(ATLAS, "46900210421404001").events
    assert assigned.data["state"]["assigned"] == {
        "officer": None,
        "why": "nobody on duty",
        "at": NOW,
    }


def act(document: Document, action: str, by: str = "officer", **more: Any) -> Decision:
    if action == "acknowledge":
        return model.acknowledge(document, by, more.get("note", ""), atlas=ATLAS, now=NOW)
    outcome = more.get("outcome", "settled")
    return model.resolve(document, by, outcome, more.get("note", ""), atlas=ATLAS, now=NOW)


def test_an_acknowledgement_takes_its_deadline_away_and_counts_once() -> None:
    decision = act(entry(), "acknowledge")
    document = decision.answer
    assert [item["kind"] for item in document["state"]["deadlines"]] == ["remind", "resolve"]
    assert document["state"]["acknowledged"] == {"by": "officer", "at": NOW}
    assert act(document, "acknowledge").events == ()
    with pytest.raises(Refused, match="officer has acknowledged"):
        act(document, "acknowledge", by="another")


def test_a_resolution_ends_the_entry_and_counts_once() -> None:
    document = act(entry(), "resolve").answer
    assert (document["status"], document["ended"]) == ("ended", "resolved")
    assert document["state"]["token"]["stage"] == "resolved"
    assert document["state"]["deadlines"] == []
    assert act(document, "resolve").events == ()
    with pytest.raises(Refused, match="has resolved the case already"):
        act(document, "resolve", note="something else")
    with pytest.raises(Refused, match="the case is resolved"):
        act(document, "acknowledge")


def test_a_released_entry_refuses_and_says_who_holds_the_case() -> None:
    document = model.merge(entry(), released())
    assert (document["status"], document["ended"]) == ("ended", "custody")
    for action in ("acknowledge", "resolve"):
        with pytest.raises(Refused, match="group 46900210421403 holds it now") as caught:
            act(document, action)
        assert caught.value.facts["held_by"] == {
            "level": "group",
            "division": "46900210421403",
            "unit": None,
        }


def test_a_release_that_overtakes_the_arrival_is_remembered() -> None:
    tombstone = model.merge(None, released())
    assert model.decide(tombstone, ATLAS, NOW).events == ()
    document = model.merge(tombstone, reported())
    decision = model.decide(document, ATLAS, NOW)
    assert decision.events == ()
    assert (document["status"], document["ended"]) == ("ended", "custody")
    assert document["arrived"] is not None


def test_a_release_for_custody_leaves_a_resolution_and_one_for_a_better_one_ends_it() -> None:
    document = act(entry(), "resolve").answer
    assert model.merge(document, released("custody"))["ended"] == "resolved"
    beaten = model.merge(document, released("resolution", "resolved"))
    assert beaten["ended"] == "resolution"
    assert beaten["held"]["address"]["level"] == "group"


def test_the_same_case_can_come_again() -> None:
    assert model.entry_key("c", 1, 0) != model.entry_key("c", 1, 2)
    assert model.key(released()) == model.key(reported())


def test_a_case_for_another_level_is_turned_away() -> None:
    work = model.work(reported(), "village", ATLAS, NOW)
    with pytest.raises(Reject, match="a case for household came to the village desk") as raised:
        work.change(Record(work.key))
    assert raised.value.reason == "wrong_level"


def test_an_entry_that_was_released_before_it_arrived_is_found_by_its_division() -> None:
    released_first = model.decide(model.merge(None, released()), ATLAS, NOW).document
    document = model.decide(model.merge(released_first, reported()), ATLAS, NOW).document
    assert document is not None
    assert document["status"] == "ended"
    assert document["under"][0] == GRID
