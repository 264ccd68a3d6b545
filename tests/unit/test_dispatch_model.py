"""A desk's decisions: who is on duty, what an officer may do, when an entry ends."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus.errors import Refused, Reject
from services.bus.fold import Decision, Document, Record
from services.dispatch import model
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, plus
from services.grid.directory import Directory
from services.grid.events import Event
from services.grid.moving import WrongPlace
from tests.simulator.county import DIVISIONS, GRID, atlas
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


def entry(county: Atlas = ATLAS, division: str = GRID) -> Document:
    document = arrived(county, division).document
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
    county = Atlas(Directory(DIVISIONS), ATLAS.profiles, [*ATLAS.profiles])
    (assigned,) = arrived(county, "46900210421404001").events
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
    kinds = [item["kind"] for item in document["state"]["deadlines"]]
    assert kinds == ["progress", "remind", "resolve"]
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


def test_a_resolution_with_other_pictures_is_not_the_same_again() -> None:
    said: tuple[Any, ...] = ("h-1", "settled", "", [PICTURE])
    document = ended(model.resolve(entry(), *said, atlas=ATLAS, now=NOW))
    assert model.resolve(document, *said, atlas=ATLAS, now=NOW).events == ()
    other = {**PICTURE, "sha256": "1" * 64}
    with pytest.raises(Refused, match="resolved the case already"):
        model.resolve(document, "h-1", "settled", "", [other], atlas=ATLAS, now=NOW)


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


def ended(decision: Decision) -> Document:
    assert decision.document is not None
    return decision.document


def suspended(**more: Any) -> Decision:
    return model.suspend(entry(), "h-1", "waiting", "", atlas=ATLAS, now=NOW, **more)


def test_a_suspension_is_one_however_often_it_is_sent() -> None:
    first = suspended(longest=3600.0)
    again = model.suspend(
        ended(first), "h-1", "waiting", "", atlas=ATLAS, now=plus(NOW, 60), longest=3600.0
    )
    assert (again.events, again.document) == ((), first.document)
    with pytest.raises(Refused, match="waits already"):
        model.suspend(ended(first), "h-2", "waiting", "", atlas=ATLAS, now=plus(NOW, 60))


def test_a_case_is_suspended_as_often_as_the_profile_says() -> None:
    document, now = entry(), NOW
    for _ in range(2):
        document = ended(model.suspend(document, "h-1", "waiting", "", atlas=ATLAS, now=now))
        now = plus(now, 60)
        document = ended(model.resume(document, "h-1", "", atlas=ATLAS, now=now))
        assert model.resume(document, "h-1", "", atlas=ATLAS, now=now).events == ()
    with pytest.raises(Refused, match="suspended 2 times"):
        model.suspend(document, "h-1", "waiting", "", atlas=ATLAS, now=now)


def test_after_its_longest_time_a_case_waits_no_more_and_resuming_changes_nothing() -> None:
    document = ended(suspended(longest=3600.0))
    late = plus(NOW, 3600)
    assert model.waits(document["state"], late) is None
    assert model.resume(document, "h-1", "", atlas=ATLAS, now=late).events == ()


@pytest.mark.parametrize("times", [1, 2])
def test_an_extension_that_is_sent_again_once_it_was_granted_asks_for_no_more(times: int) -> None:
    county = atlas(extension={"longest": "1d", "times": times, "source": "assumption"})
    asked = model.ask_extension(entry(county), "h-1", "1d", "路远", atlas=county, now=NOW)
    above = ended(model.decide(model.merge(None, asked.events[0]), county, NOW))
    granted = model.answer_extension(above, "g-1", "", granted=True, atlas=county, now=NOW)
    applied = ended(model.decide(model.merge(ended(asked), granted.events[0]), county, NOW))
    said, later = ("h-1", "1d", "路远"), {"atlas": county, "now": plus(NOW, 60)}
    again = model.ask_extension(applied, *said, **later)
    assert (again.events, again.answer) == ((), applied)
    if times == 1:
        with pytest.raises(Refused, match="the profile allows 1"):
            model.ask_extension(applied, *said, **later, another=True)
    else:
        (anew,) = model.ask_extension(applied, *said, **later, another=True).events
        assert anew.type == "case.extension_requested"
        assert anew.data["extension"]["id"] != applied["extension"]["id"]


def test_an_extension_is_asked_once_answered_once_and_applied_once() -> None:
    asked = model.ask_extension(entry(), "h-1", "1d", "路远", atlas=ATLAS, now=NOW)
    (request,) = asked.events
    assert request.key.startswith("case.extension_requested.group.")
    same = model.ask_extension(ended(asked), "h-1", "1d", "路远", atlas=ATLAS, now=plus(NOW, 5))
    assert same.events == ()
    with pytest.raises(Refused, match="not answered yet"):
        model.ask_extension(ended(asked), "h-1", "2d", "路远", atlas=ATLAS, now=NOW)
    above = ended(model.decide(model.merge(None, request), ATLAS, NOW))
    granted = model.answer_extension(above, "g-1", "", granted=True, atlas=ATLAS, now=NOW)
    assert (
        model.answer_extension(ended(granted), "g-1", "", granted=True, atlas=ATLAS, now=NOW).events
        == ()
    )
    with pytest.raises(Refused, match="granted already"):
        model.answer_extension(ended(granted), "g-1", "", granted=False, atlas=ATLAS, now=NOW)
    (grant,) = granted.events
    applied = model.decide(model.merge(ended(asked), grant), ATLAS, NOW)
    assert [event.type for event in applied.events] == ["case.extended"]
    again = model.decide(model.merge(ended(applied), grant), ATLAS, plus(NOW, 60))
    assert again.events == ()
    with pytest.raises(Refused, match="the profile allows 1"):
        model.ask_extension(ended(applied), "h-1", "1d", "再", atlas=ATLAS, now=NOW)


def test_what_was_refused_may_be_asked_again_but_not_answered_by_who_asked() -> None:
    document, now = entry(), NOW
    for reason in ("路远", "人少", "路远"):
        now = plus(now, 60)
        asked = model.ask_extension(document, "h-1", "1d", reason, atlas=ATLAS, now=now)
        above = ended(model.decide(model.merge(None, asked.events[0]), ATLAS, now))
        with pytest.raises(Refused, match="another person"):
            model.answer_extension(above, "h-1", "", granted=True, atlas=ATLAS, now=now)
        refused = model.answer_extension(above, "g-1", "", granted=False, atlas=ATLAS, now=now)
        document = ended(model.decide(model.merge(ended(asked), refused.events[0]), ATLAS, now))
        assert document["extension"]["answer"] == "refused"


def test_a_desk_that_is_not_above_is_not_asked() -> None:
    asked = model.ask_extension(entry(), "h-1", "1d", "路远", atlas=ATLAS, now=NOW)
    with pytest.raises(Reject, match="not above"):
        model.work(asked.events[0], "township", ATLAS, NOW).change(Record("x"))


def test_a_grant_that_comes_after_the_case_moved_on_is_nothing() -> None:
    asked = model.ask_extension(entry(), "h-1", "1d", "路远", atlas=ATLAS, now=NOW)
    above = ended(model.decide(model.merge(None, asked.events[0]), ATLAS, NOW))
    granted = model.answer_extension(above, "g-1", "", granted=True, atlas=ATLAS, now=NOW)
    moved = model.merge(ended(asked), released())
    late = model.decide(model.merge(moved, granted.events[0]), ATLAS, NOW)
    assert late.events == ()


def test_the_last_level_has_nobody_to_ask() -> None:
    document = entry(ATLAS, "469002104")
    with pytest.raises(Refused, match="no level above"):
        model.ask_extension(document, "t-1", "1d", "路远", atlas=ATLAS, now=NOW)


PICTURE = {"url": "https://files.example.org/lamp.jpg", "sha256": "0f" * 32, "name": "路灯.jpg"}


def test_a_note_is_one_act_and_the_same_again_is_none() -> None:
    first = model.note(entry(), "h-1", "已到现场", [PICTURE], atlas=ATLAS, now=NOW)
    (noted,) = first.events
    assert Event.read(noted.body()).data["note"] == ended(first)["notes"][0]
    assert noted.data["note"]["attachments"] == [PICTURE]
    assert noted.data["state"]["token"]["seq"] == 2
    assert noted.data["state"]["deadlines"] == entry()["state"]["deadlines"]
    again = {"atlas": ATLAS, "now": plus(NOW, 60)}
    assert model.note(ended(first), "h-1", "已到现场", [PICTURE], **again).events == ()
    # Another's, with less to show, or known to be another: a note of its own.
    for by, shown, another in (("h-2", [PICTURE], False), ("h-1", [], False), ("h-1", [], True)):
        more = model.note(ended(first), by, "已到现场", shown, another=another, **again)
        assert [event.type for event in more.events] == ["case.noted"]
        assert len(ended(more)["notes"]) == 2


def test_an_entry_shows_its_last_notes() -> None:
    document = entry()
    for number in range(model.NOTES + 5):
        document = ended(model.note(document, "h-1", f"进展 {number}", atlas=ATLAS, now=NOW))
    assert [item["text"] for item in document["notes"]][:2] == ["进展 5", "进展 6"]
    assert len(document["notes"]) == model.NOTES


@pytest.mark.parametrize("kind", ["acknowledge", "suspend", "resume", "resolve"])
def test_an_act_carries_what_shows_it(kind: str) -> None:
    at = {"atlas": ATLAS, "now": NOW}
    document = ended(suspended()) if kind == "resume" else entry()
    acts = {
        "acknowledge": lambda: model.acknowledge(document, "h-1", "", [PICTURE], **at),
        "suspend": lambda: model.suspend(document, "h-1", "waiting", "", [PICTURE], **at),
        "resume": lambda: model.resume(document, "h-1", "", [PICTURE], **at),
        "resolve": lambda: model.resolve(document, "h-1", "settled", "", [PICTURE], **at),
    }
    (event,) = acts[kind]().events
    assert Event.read(event.body()).data["attachments"] == [PICTURE]


def asking(document: Document, action: str = "escalate", **more: Any) -> Decision:
    said = {"by": "h-1", "reason": "超出职权", "now": NOW, **more}
    by, reason = said.pop("by"), said.pop("reason")
    return model.request(document, by, action, reason, atlas=ATLAS, **said)


def test_a_request_leaves_the_entry_live_and_the_same_again_asks_nothing() -> None:
    asked = asking(entry())
    (event,) = asked.events
    request = Event.read(event.body()).data["request"]
    assert (request["action"], request["reason"], request["by"]) == ("escalate", "超出职权", "h-1")
    document = ended(asked)
    assert document["status"] == "live"
    assert document["state"] == entry()["state"]
    assert document["request"]["answer"] is None
    assert asking(document, now=plus(NOW, 60)).events == ()
    with pytest.raises(Refused, match="was not answered yet") as caught:
        asking(document, reason="别的原因")
    assert caught.value.facts["held_by"]["level"] == "household"


def granting(request: dict[str, Any]) -> Event:
    release = released()
    told = {**release.data["released"], "granted": request["id"]}
    return Event(**{**release.as_document(), "data": {**release.data, "released": told}})


def refusing(document: Document, why: str) -> Event:
    release = released()
    data = {
        "case": release.data["case"],
        "state": release.data["state"],
        "request": document["request"],
        "asked": document["state"]["token"],
        "why": why,
    }
    return Event(**{**release.as_document(), "type": "case.refused", "data": data})


def test_a_granted_request_is_answered_by_the_release_and_stays_so() -> None:
    document = ended(asking(entry()))
    moved = model.merge(document, granting(document["request"]))
    assert (moved["status"], moved["ended"]) == ("ended", "custody")
    assert moved["request"]["answer"] == "granted"
    # Sent again over a bad network it is the first answer; anything else is too late.
    assert asking(moved, now=plus(NOW, 60)).events == ()
    assert model.asked_before(moved, "h-1", "escalate", None, "超出职权", atlas=ATLAS)
    assert not model.asked_before(moved, "h-2", "escalate", None, "超出职权", atlas=ATLAS)
    with pytest.raises(Refused, match="group 46900210421403 holds it now"):
        asking(moved, reason="别的原因")
    assert model.merge(moved, refusing(document, "too_late"))["request"]["answer"] == "granted"


def test_a_case_that_a_deadline_takes_away_leaves_the_request_to_its_refusal() -> None:
    document = ended(asking(entry()))
    moved = model.merge(document, released())
    assert moved["request"]["answer"] is None
    told = model.merge(moved, refusing(document, "too_late"))["request"]
    assert (told["answer"], told["why"]) == ("refused", "too_late")
    assert told["held_by"]["level"] == "group"


def test_what_was_refused_may_be_asked_again() -> None:
    document = ended(asking(entry()))
    refused = model.merge(document, refusing(document, "last_level"))
    for later in (0, 60):
        again = asking(refused, now=plus(NOW, later))
        assert len(again.events) == 1
        assert ended(again)["request"]["id"] != document["request"]["id"]


def test_what_can_not_be_asked_for_is_said_at_once() -> None:
    with pytest.raises(Refused, match="nobody sent it here"):
        asking(entry(), "return")
    with pytest.raises(Refused, match="no level above"):
        asking(entry(ATLAS, "469002104"))
    with pytest.raises(WrongPlace, match="not below household"):
        asking(entry(), "delegate", to={"division": "469002104"})


def test_an_entry_remembers_what_was_done_under_its_last_keys() -> None:
    document = entry()
    for number in range(model.REMEMBERED + 1):
        document = model.remembered(document, f"key-{number}", f"digest-{number}")
    assert model.done(document, "key-0") is None
    assert model.done(document, "key-1") == "digest-1"
