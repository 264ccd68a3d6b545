"""Units that are called to a case (吹哨报到): pure decisions, in whatever order events come."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from marshmallow import Schema, validate

from services.bus.errors import Refused, Reject
from services.bus.fold import Decision, Document, Record
from services.dispatch import api as desk_api
from services.dispatch import calls as desk_calls
from services.dispatch import model as dispatch
from services.escalation import model as custodian
from services.escalation import reconciliation
from services.grid import whistles
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.directory import Directory, Unit
from services.grid.events import Event
from services.grid.events.envelope import LONGEST_BODY
from services.grid.preview import preview
from services.grid.profile import Loaded, Profile, ProfileError, load_folder
from services.grid.tokens import Address, Token
from services.intake import model as intake
from services.notify import model as notify
from tests.simulator.county import DIVISIONS, GRID, OFFICERS, RULES, TEAM, UNIT, UNITS, atlas
from tests.simulator.world import World

NOW = FrozenClock().now()
COUNTY = atlas()
VILLAGE = Address("village", "469002104214")


def reported(county: Atlas = COUNTY, division: str = VILLAGE.division, **more: Any) -> Event:
    world = World(county)
    world.report("case-1", division=division, **more)
    return Event.read(world.published[0].body)


def entry(county: Atlas = COUNTY, division: str = VILLAGE.division, **more: Any) -> Document:
    merged = dispatch.merge(None, reported(county, division, **more))
    document = dispatch.decide(merged, county, NOW).document
    assert document is not None
    return document


def blow(document: Document, *units: str, by: str = "v-1", **more: Any) -> Decision:
    said = {"atlas": COUNTY, "now": NOW, **more}
    return dispatch.whistle(document, by, units or (UNIT,), "占道经营", **said)


def blown(*units: str, **more: Any) -> Document:
    document = blow(entry(), *units, **more).document
    assert document is not None
    return document


def joined(document: Document) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["state"]["joined"]
    return found


def custody(*events: Event, at: Instant = NOW) -> tuple[Document, list[Event]]:
    """What the custodian knows after these events, and all that it said."""
    document, said = None, list[Event]()
    for event in events:
        decision = custodian.decide(custodian.merge(document, event, at), COUNTY, at)
        document = decision.document
        said += decision.events
    assert document is not None
    return document, said


def fire(document: Document, at: Instant) -> Decision:
    return custodian.fire(Record("case-1", 1, document, (), NOW), COUNTY, at, at)


def called(said: list[Event], kind: str = "case.called") -> list[Event]:
    return [event for event in said if event.type == kind]


def at_unit(event: Event) -> Document:
    document = desk_calls.heard(None, event, COUNTY, NOW).document
    assert document is not None
    return document


def done(document: Document, what: str, by: str = "u-1", at: Instant = NOW) -> Decision:
    act = {"check_in": desk_calls.check_in, "finish": desk_calls.finish}[what]
    return act(document, by, "到了", atlas=COUNTY, now=at)


# -- the profile ---------------------------------------------------------------------------


def problems(**whistle: Any) -> list[str]:
    with pytest.raises(ProfileError) as raised:
        Profile.parse({**RULES, **whistle})
    return [f"{item.field}: {item.text}" for item in raised.value.problems]


LINE = {"check_in": "1h", "finish": "1d", "source": "assumption"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "whistle: write a list with at least one entry"),
        ([{"check_in": "1h", "source": "x"}], "whistle[0].finish: is missing: add it"),
        ([{**LINE, "check_in": "soon"}], "whistle[0].check_in: 'soon' is not a deadline"),
        (
            [{**LINE, "check_in": "1h since report"}],
            "whistle[0].check_in: '1h since report': it counts from the call on",
        ),
        ([{**LINE, "finish": "2 working days"}], "whistle[0]: '2 working days' needs a calendar"),
        ([{**LINE, "supervise": "perhaps"}], "whistle[0].supervise: 'perhaps' is not known"),
        ([{**LINE, "when": {"unit": "x"}}], "whistle[0]: other units and cases have no time"),
        ([LINE, LINE], "whistle[1]: never applies"),
        ([{**LINE, "by": "county"}], "whistle[0].by: 'county' is not known"),
        ([{**LINE, "by": ["village"]}] * 2, "whistle[1]: never applies"),
        ([{**LINE, "when": {"urgency": "huge"}}, LINE], "whistle[0].when.urgency: 'huge'"),
    ],
)
def test_each_mistake_is_named(lines: list[Any], said: str) -> None:
    found = problems(whistle=lines)
    assert any(item.startswith(said) for item in found), found


def test_only_what_is_about_a_unit_tells_it() -> None:
    line = {"on": "case.closed", "tell": ["called"], "by": ["log"], "text": "x"}
    assert problems(templates=[line])[0].startswith("templates[0].tell: 'called' is not known")
    Profile.parse({**RULES, "templates": [{**line, "on": "case.called"}]})


def test_a_unit_that_nobody_has_is_a_mistake_of_the_folder(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "profiles" / "qionghai"
    for path in source.iterdir():
        if path.suffix in (".yaml", ".csv"):
            text = path.read_text(encoding="utf-8")
            if path.name == "profile.yaml":
                text = text.replace(
                    "unit: [治安联防队, 民生保障队, 志愿服务队]}, check_in",
                    "unit: 治安队}, check_in",
                )
            (tmp_path / path.name).write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as raised:
        load_folder(tmp_path)
    (problem,) = raised.value.problems
    assert (problem.field, problem.text.startswith("'治安队' is not known")) == (
        "whistle[1].when.unit",
        True,
    )


def test_a_preview_shows_what_a_unit_would_have() -> None:
    profile = Profile.parse(RULES)
    loaded = Loaded(profile, DIVISIONS, UNITS, OFFICERS)
    facts = {"urgency": "ordinary", "category": "facility", "source": "app"}
    for step in preview(loaded, facts, GRID, NOW).steps:
        kinds = {item["kind"]: item for item in step.calls}
        assert kinds["check_in"]["due"] == plus(step.arrives, 3600)
        assert kinds["finish"]["rule"] == "profile.yaml whistle[1]"
    without = {name: value for name, value in RULES.items() if name != "whistle"}
    none = Loaded(Profile.parse(without), DIVISIONS, UNITS, OFFICERS)
    assert preview(none, facts, GRID, NOW).steps[0].calls == ()


# -- the holder ----------------------------------------------------------------------------


def test_each_unit_has_deadlines_of_its_own_that_are_explained() -> None:
    decision = blow(entry(), UNIT, TEAM)
    assert decision.document is not None
    centre, team = joined(decision.document)
    assert (centre["unit"], centre["level"], centre["lead"]) == (UNIT, "township", True)
    assert (team["unit"], team["level"], team["lead"]) == (TEAM, "village", False)
    assert centre["check_in"] == {
        "kind": "check_in",
        "due": plus(NOW, 3600),
        "rule": "profile.yaml whistle[1]",
        "source": "assumption",
        "calendar": None,
        "counted": ["1h"],
    }
    assert team["check_in"]["due"] == plus(NOW, 1800)
    assert centre["finish"]["counted"] == ["end_of_day", "to the end of 2026-01-05"]
    (event,) = decision.events
    assert (event.type, event.data["units"]) == ("case.whistled", [UNIT, TEAM])
    # It is an act, and changes no deadline of the holder but that of progress.
    token = decision.document["state"]["token"]
    assert token["seq"] == entry()["state"]["token"]["seq"] + 1
    assert event.key.startswith("case.whistled.village.")


def test_a_whistle_that_asks_for_something_else_is_not_the_same_again() -> None:
    document = blown(UNIT, TEAM, lead=TEAM, asked={"check_in": "20m"})
    for same in ({}, {"asked": {"check_in": "20m"}}, {"lead": TEAM}):
        assert blow(document, UNIT, TEAM, **same).events == (), same
    for other in ({"asked": {"check_in": "10m"}}, {"asked": {"finish": "1h"}}, {"lead": UNIT}):
        with pytest.raises(Refused, match="called already: release it first"):
            blow(document, UNIT, TEAM, **other)


def test_the_same_again_changes_nothing_and_another_is_refused() -> None:
    document = blown(UNIT)
    assert blow(document, UNIT).events == ()
    for by, units in (("v-2", [UNIT]), ("v-1", [UNIT, TEAM])):
        with pytest.raises(Refused, match="centre was called already: release it first"):
            blow(document, *units, by=by)


def test_more_are_called_later_and_the_lead_stays() -> None:
    document = blow(blown(UNIT), TEAM).document
    assert document is not None
    assert [(item["unit"], item["lead"]) for item in joined(document)] == [
        (UNIT, True),
        (TEAM, False),
    ]
    with pytest.raises(Refused, match="centre leads them"):
        blow(blown(UNIT), TEAM, lead=TEAM)
    assert joined(blown(UNIT, TEAM, lead=TEAM))[1]["lead"]


def test_a_shorter_time_may_be_asked_for_and_no_longer_one() -> None:
    (call,) = joined(blown(UNIT, asked={"check_in": "10m"}))
    assert (call["check_in"]["due"], call["check_in"]["counted"]) == (plus(NOW, 600), ["10m"])
    for asked, said in (
        ({"check_in": "2h"}, "check_in: the profile allows 1h at most: write less"),
        ({"finish": "soon"}, "finish: 'soon' is not a deadline"),
        ({"finish": "1 working days"}, "finish: profile.yaml whistle[1] counts with no calendar"),
    ):
        with pytest.raises(whistles.WrongCall) as raised:
            blown(UNIT, asked=asked)
        assert str(raised.value).startswith(said)


def test_without_a_rule_nobody_is_called() -> None:
    county = atlas(whistle=[LINE])
    without = {name: value for name, value in RULES.items() if name != "whistle"}
    profile = Profile.parse(without)
    county = Atlas(county.directory, {profile.id: profile}, [profile.id])
    with pytest.raises(Refused, match="add a part whistle"):
        blow(entry(county), atlas=county)


def test_a_profile_says_which_levels_may_call_whom() -> None:
    lines = [
        {**LINE, "when": {"unit": TEAM}, "by": ["village"], "check_in": "5m"},
        {**LINE, "by": ["village", "township"]},
    ]
    county = atlas(whistle=lines)
    (call,) = joined(blow(entry(county), TEAM, atlas=county).document or {})
    assert call["check_in"]["counted"] == ["5m"]
    (call,) = joined(blow(entry(county), UNIT, atlas=county).document or {})
    assert call["check_in"]["counted"] == ["1h"]
    # What one level has before, another still needs.
    Profile.parse({**RULES, "whistle": [{**LINE, "by": ["village"]}, LINE]})
    with pytest.raises(whistles.WrongCall, match="lets no household call centre: escalate it"):
        blow(entry(county, division=GRID), UNIT, atlas=county)
    loaded = Loaded(county.current[0], DIVISIONS, UNITS, OFFICERS)
    facts = {"urgency": "ordinary", "category": "facility", "source": "app"}
    steps = preview(loaded, facts, GRID, NOW).steps
    assert [bool(step.calls) for step in steps] == [False, False, True, True]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"unit": "治安队"}, "'治安队' is not known"),
        ({"unit": TEAM, "level": "township"}, "team is at the village 469002104214"),
        ({"unit": "治安联防队", "division": "469002104205"}, "'治安联防队' is not known"),
    ],
)
def test_a_unit_that_is_not_there_is_named(said: dict[str, Any], why: str) -> None:
    profile = COUNTY.current[0]
    with pytest.raises(whistles.WrongCall) as raised:
        whistles.named([said], VILLAGE, profile, COUNTY.directory)
    assert list(raised.value.errors) == ["units.0.unit"]
    assert raised.value.errors["units.0.unit"].startswith(why)


def test_a_unit_is_known_by_its_name_near_the_holder_or_by_its_id_anywhere() -> None:
    profile, household = COUNTY.current[0], Address("household", GRID)

    def ids(*said: dict[str, Any], here: Address = household) -> list[str]:
        return [item.id for item in whistles.named(said, here, profile, COUNTY.directory)]

    assert ids({"unit": "治安联防队"}, {"unit": "综治中心"}) == [TEAM, UNIT]
    assert ids({"unit": TEAM}, here=Address("village", "469002104205")) == [TEAM]
    township = Address("township", "469002104")
    assert ids({"unit": "治安联防队", "division": "469002104214"}, here=township) == [TEAM]
    for said, here, why in (
        ([{"unit": UNIT}, {"unit": "综治中心"}], township, "centre is called twice"),
        ([{"unit": UNIT}], Address("township", "469002104", UNIT), "centre holds the case"),
    ):
        with pytest.raises(whistles.WrongCall, match=why):
            ids(*said, here=here)


def test_a_round_calls_so_many_units_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whistles, "MOST", 1)
    with pytest.raises(Refused, match="1 units at most"):
        blow(entry(), UNIT, TEAM)


def release(document: Document, unit: str = UNIT, **more: Any) -> Decision:
    said = {"by": "v-1", "score": 4, "note": "来得快", **more}
    by, score, note = said["by"], said["score"], said["note"]
    return dispatch.release(document, by, unit, score, note, atlas=COUNTY, now=NOW)


def test_the_holder_releases_and_scores_once() -> None:
    decision = release(blown(UNIT))
    document = decision.document
    assert document is not None
    assert joined(document)[0]["released"] == {
        "by": "v-1",
        "at": NOW,
        "score": 4,
        "note": "来得快",
    }
    assert [event.type for event in decision.events] == ["case.unit_released"]
    assert release(document).events == ()
    with pytest.raises(Refused, match="v-1 has released centre already"):
        release(document, score=1)
    with pytest.raises(Refused, match="team was not called"):
        release(document, TEAM)
    # It may be called again, and then released again.
    again = blow(document, UNIT, now=plus(NOW, 60)).document
    assert again is not None
    assert [item["released"] is None for item in joined(again)] == [False, True]
    assert release(again).events


def test_only_a_unit_that_never_came_goes_unscored() -> None:
    document = blown(UNIT)
    assert release(document, score=None).events
    (call,) = joined(document)
    came = {call["id"]: {**whistles.NOTHING, "checked_in": {"by": "u-1", "at": NOW, "note": ""}}}
    with pytest.raises(whistles.WrongCall, match="centre came: write how it did"):
        release({**document, "progress": came}, score=None)


def test_a_resolution_releases_whoever_is_there_and_may_score_them() -> None:
    document = blown(UNIT, TEAM)
    decision = dispatch.resolve(
        document, "v-1", "settled", "好", atlas=COUNTY, now=NOW, scores={TEAM: 5}
    )
    assert decision.document is not None
    scores = {item["unit"]: item["released"]["score"] for item in joined(decision.document)}
    assert scores == {UNIT: None, TEAM: 5}


def test_a_unit_that_was_given_the_case_does_not_score_itself() -> None:
    document = blown(UNIT, TEAM)
    state = document["state"]
    own = {**document, "state": {**state, "address": {**state["address"], "unit": TEAM}}}
    came = {"checked_in": {"by": "d-1", "at": NOW, "note": ""}}
    own["progress"] = {call["id"]: {**whistles.NOTHING, **came} for call in joined(own)}
    with pytest.raises(whistles.WrongCall, match="no unit scores itself"):
        release(own, TEAM, by="d-1", score=5)
    left = release(own, TEAM, by="d-1", score=None).document
    assert left is not None
    assert [item["released"] is None for item in joined(left)] == [True, False]
    with pytest.raises(whistles.WrongCall, match=f"scores.{TEAM}"):
        dispatch.resolve(own, "d-1", "settled", "", atlas=COUNTY, now=NOW, scores={TEAM: 5})
    assert dispatch.resolve(own, "d-1", "settled", "", atlas=COUNTY, now=NOW, scores={UNIT: 3})


def test_who_holds_the_case_no_longer_calls_and_releases_nobody() -> None:
    document = {**blown(UNIT), "status": "ended", "ended": "custody"}
    for act in (lambda: blow(document, TEAM), lambda: release(document)):
        with pytest.raises(Refused):
            act()


# -- the unit's desk -----------------------------------------------------------------------


def events_of_a_call() -> tuple[Event, Event, Document]:
    """That a unit is called, that its call has ended, and the holder's entry in between."""
    document = blown(UNIT)
    whistled = blow(entry(), UNIT).events[0]
    _held, said = custody(reported(), whistled)
    (call,) = called(said)
    _over, later = custody(reported(), whistled, release(document).events[0])
    (ended,) = called(later, "case.call_ended")
    return call, ended, document


def test_a_call_is_addressed_to_the_unit_and_kept_at_its_desk() -> None:
    call, _ended, _document = events_of_a_call()
    assert call.key.startswith("case.called.township.")
    work = dispatch.work(call, "township", COUNTY, NOW)
    decision = work.change(Record(work.key))
    assert decision.document is not None
    assert (decision.document["status"], decision.document["call"]["unit"]) == ("called", UNIT)
    assert decision.document["under"] == ["469002104", "469002"]
    elsewhere = dispatch.work(call, "village", COUNTY, NOW)
    with pytest.raises(Reject, match="township unit centre came to the village desk"):
        elsewhere.change(Record(elsewhere.key))


def test_a_unit_checks_in_and_finishes_once() -> None:
    call, _ended, _document = events_of_a_call()
    first = done(at_unit(call), "check_in")
    assert first.document is not None
    assert (first.document["status"], first.events[0].type) == ("checked_in", "case.checked_in")
    assert first.events[0].key.startswith("case.checked_in.township.")
    assert done(first.document, "check_in").events == ()
    with pytest.raises(Refused, match="u-1 has checked in already, for the whole unit"):
        done(first.document, "check_in", by="u-2")
    last = done(first.document, "finish", by="u-2", at=plus(NOW, 60))
    assert last.document is not None
    assert (last.document["status"], last.document["checked_in"]["by"]) == ("finished", "u-1")
    assert last.events[0].data["progress"]["finished"]["by"] == "u-2"


def test_who_is_done_has_come() -> None:
    call, _ended, _document = events_of_a_call()
    document = done(at_unit(call), "finish").document
    assert document is not None
    assert document["checked_in"] == document["finished"]
    assert done(document, "check_in").events == ()


def test_a_call_that_is_over_is_over_in_whatever_order_it_is_heard() -> None:
    call, ended, _document = events_of_a_call()
    found = []
    for order in permutations([call, ended]):
        document = None
        for event in order:
            document = desk_calls.merge(document, event)
        assert document is not None
        found.append(document)
    assert found[0] == found[1]
    assert found[0]["status"] == "ended"
    assert found[0]["ended"]["released"]["score"] == 4
    with pytest.raises(Refused, match="who called the unit has released it"):
        done(found[0], "check_in")


# -- the custodian -------------------------------------------------------------------------


def test_the_custodian_waits_for_each_unit_and_explains_it() -> None:
    document, _said = custody(reported(), blow(entry(), UNIT, TEAM).events[0])
    rows = [row for row in custodian.explain(document) if row["kind"] in whistles.KINDS]
    assert {(row["unit"], row["kind"], row["status"]) for row in rows} == {
        (unit, kind, "armed") for unit in (UNIT, TEAM) for kind in whistles.KINDS
    }
    assert document["next_due"] == plus(NOW, 1800)
    assert {row["source"] for row in rows} == {"assumption"}


def test_what_a_unit_did_is_known_in_whatever_order_it_is_heard() -> None:
    whistled = blow(entry(), UNIT).events[0]
    _held, said = custody(reported(), whistled)
    came = done(at_unit(called(said)[0]), "check_in")
    assert came.document is not None
    finished = done(came.document, "finish", at=plus(NOW, 60))
    events = [reported(), whistled, came.events[0], finished.events[0]]
    found, register = [], []
    for order in permutations(events):
        document, _all = custody(*order)
        call = document["calls"][joined(blown(UNIT))[0]["id"]]
        found.append({name: call[name] for name in whistles.NOTHING})
        shown = None
        for event in order:
            shown = intake.merge(shown, event)
        assert shown is not None
        register.append(shown["progress"])
    assert all(item == found[0] for item in found)
    assert all(item == register[0] for item in register)
    assert found[0] == next(iter(register[0].values()))
    assert (found[0]["checked_in"]["at"], found[0]["finished"]["at"]) == (NOW, plus(NOW, 60))


def test_the_holder_is_told_what_the_units_did_and_so_is_the_next() -> None:
    held, said = custody(reported(), blow(entry(), UNIT).events[0])
    came = done(at_unit(called(said)[0]), "check_in").events[0]
    decision = custodian.decide(custodian.merge(held, came, NOW), COUNTY, NOW)
    (told,) = called(list(decision.events), "case.joined")
    assert told.key.startswith("case.joined.village.")
    document = dispatch.merge(blown(UNIT), told)
    call = joined(document)[0]["id"]
    assert document["progress"][call]["checked_in"]["by"] == "u-1"
    # It climbs; the unit stays, and the township hears of it.
    assert decision.document is not None
    later = fire(decision.document, plus(NOW, 4 * 3600))
    kinds = [event.type for event in later.events]
    assert kinds.index("case.escalated") < kinds.index("case.joined")
    assert "case.call_ended" not in kinds
    (next_,) = called(list(later.events), "case.joined")
    assert next_.key.startswith("case.joined.township.")
    (moved,) = called(list(later.events), "case.escalated")
    above = dispatch.decide(dispatch.merge(None, moved), COUNTY, NOW).document
    assert above is not None
    assert joined(above)[0]["released"] is None
    assert release(dispatch.merge(above, next_), by="t-1").events


def test_a_unit_that_stays_away_is_told_of_once_and_the_case_supervised() -> None:
    held, _said = custody(reported(), blow(entry(), UNIT).events[0])
    at = plus(NOW, 3600)
    assert fire(held, plus(at, -1)).events == []
    decision = fire(held, at)
    kinds = [event.type for event in decision.events]
    assert kinds == ["case.unit_overdue", "case.supervised", "case.joined"]
    overdue, supervised, _joined = decision.events
    assert overdue.data["passed"] == {
        "kind": "check_in",
        "due": at,
        "fired_at": at,
        "count": 1,
    }
    assert overdue.key.startswith("case.unit_overdue.township.")
    assert supervised.data["passed"]["kind"] == "unanswered"
    assert supervised.data["supervisor"]["by"] == "profile.yaml whistle[1]"
    assert decision.document is not None
    again = fire(decision.document, plus(at, 60))
    assert [event.type for event in again.events] == []
    (row,) = [row for row in custodian.explain(decision.document) if row["kind"] == "check_in"]
    assert (row["status"], row["unit"], row["fired_at"]) == ("fired", UNIT, at)


def test_it_is_supervised_for_one_of_two_only_where_the_profile_says_any() -> None:
    held, said = custody(reported(), blow(entry(), UNIT, TEAM).events[0])
    team = next(event for event in called(said) if event.data["call"]["unit"] == TEAM)
    centre = next(event for event in called(said) if event.data["call"]["unit"] == UNIT)
    # The team has a rule that says any, the centre one that says all.
    for came, at, supervised in ((centre, 1800, True), (team, 3600, False)):
        event = done(at_unit(came), "check_in").events[0]
        document = custodian.decide(custodian.merge(held, event, NOW), COUNTY, NOW).document
        assert document is not None
        kinds = [item.type for item in fire(document, plus(NOW, at)).events]
        assert ("case.supervised" in kinds) == supervised, came.data["call"]["unit"]
        assert "case.unit_overdue" in kinds


def test_a_unit_that_came_and_is_not_done_in_time_is_told_of_and_no_more() -> None:
    held, said = custody(reported(), blow(entry(), UNIT, asked={"finish": "2h"}).events[0])
    came = done(at_unit(called(said)[0]), "check_in").events[0]
    document = custodian.decide(custodian.merge(held, came, NOW), COUNTY, NOW).document
    assert document is not None
    decision = fire(document, plus(NOW, 7200))
    assert [event.type for event in decision.events] == ["case.unit_overdue", "case.joined"]
    assert decision.events[0].data["passed"]["kind"] == "finish"
    assert decision.document is not None
    assert decision.document["state"] == document["state"]
    # Done late, it is done: nothing is waited for any more but its release.
    first = done(at_unit(called(said)[0]), "check_in").document
    assert first is not None
    finished = done(first, "finish", at=plus(NOW, 9000)).events[0]
    merged = custodian.merge(decision.document, finished, plus(NOW, 9000))
    (known,) = merged["calls"].values()
    assert (known["missed"], known["finished"]["at"]) == (["finish"], plus(NOW, 9000))
    assert known["ended"] is None


def test_a_unit_that_was_told_late_has_its_chance() -> None:
    late = plus(NOW, 2 * 3600)
    document, _said = custody(reported(), blow(entry(), UNIT).events[0], at=late)
    assert "case.unit_overdue" not in [item.type for item in fire(document, late).events]
    grace = COUNTY.current[0].grace
    kinds = [item.type for item in fire(document, plus(late, grace)).events]
    assert "case.unit_overdue" in kinds


def test_what_ends_the_case_ends_every_call() -> None:
    document = blown(UNIT)
    held, _said = custody(reported(), blow(entry(), UNIT).events[0])
    resolved = dispatch.resolve(document, "v-1", "settled", "", atlas=COUNTY, now=NOW).events[0]
    decision = custodian.decide(custodian.merge(held, resolved, NOW), COUNTY, NOW)
    (ended,) = called(list(decision.events), "case.call_ended")
    assert (ended.data["why"], ended.data["released"]["score"]) == ("released", None)
    register = intake.merge(intake.merge(None, reported()), blow(entry(), UNIT).events[0])
    withdrawn = intake.withdraw(register, "portal", "自己好了", atlas=COUNTY, now=NOW).events[0]
    decision = custodian.decide(custodian.merge(held, withdrawn, NOW), COUNTY, NOW)
    (ended,) = called(list(decision.events), "case.call_ended")
    assert (ended.data["why"], ended.data["released"]) == ("ended", None)
    assert ended.key.startswith("case.call_ended.township.")


def test_a_whistle_of_a_desk_that_had_lost_the_case_calls_nobody() -> None:
    held, _said = custody(reported())
    moved = fire(held, plus(NOW, 4 * 3600)).document
    assert moved is not None
    late = blow(entry(), UNIT).events[0]
    decision = custodian.decide(custodian.merge(moved, late, NOW), COUNTY, NOW)
    assert [event.type for event in decision.events] == []


def test_a_unit_is_told_by_its_officers_and_by_who_is_above() -> None:
    held, said = custody(reported(), blow(entry(), UNIT, TEAM).events[0])
    texts = {}
    for event in called(said):
        found = notify.work(event, (), COUNTY, NOW).change(Record(event.id)).document
        assert found is not None
        texts[event.data["call"]["unit"]] = [
            (item["recipient"], item["text"]) for item in found["deliveries"]
        ]
    assert texts[UNIT] == [("officer:u-1", f"综治中心 {plus(NOW, 3600)}")]
    overdue = called(list(fire(held, plus(NOW, 3600)).events), "case.unit_overdue")
    told = {}
    for event in overdue:
        found = notify.work(event, (), COUNTY, NOW).change(Record(event.id)).document
        assert found is not None
        told[event.data["call"]["unit"]] = {item["recipient"] for item in found["deliveries"]}
    # The village's team stands below the township; the township's centre below the county.
    assert "desk:township:469002104" in told[TEAM]
    assert "division:469002" in told[UNIT]


def longest(schema: type[Schema], name: str) -> str:
    """The longest text that may be written there, of signs of four bytes."""
    lengths = schema().fields[name].validators
    return "😀" * next(item.max or 0 for item in lengths if isinstance(item, validate.Length))


def test_what_all_units_say_fits_into_an_event_that_is_read() -> None:
    units = [Unit(f"u-{number}", f"队{number}", *VILLAGE[:2]) for number in range(whistles.MOST)]
    profiles = COUNTY.profiles
    county = Atlas(Directory(DIVISIONS, units, OFFICERS), profiles, [*profiles])
    said, at = longest(desk_api.WhistleBody, "reason"), {"atlas": county, "now": NOW}
    ids = [unit.id for unit in units]
    desk = dispatch.whistle(entry(county), "v-1", ids, said, **at)
    document, events = None, list[Event]()
    for event in (reported(county), *desk.events):
        decision = custodian.decide(custodian.merge(document, event, NOW), county, NOW)
        document, events = decision.document, [*events, *decision.events]
    note = longest(desk_api.CallBody, "note")
    for event in called(events):
        unit = desk_calls.check_in(at_unit(event), "u-1", note, **at)
        done_ = desk_calls.finish(unit.document or {}, "u-2", note, **at)
        for told in (*unit.events, *done_.events):
            decision = custodian.decide(custodian.merge(document, told, NOW), county, NOW)
            document, events = decision.document, [*events, *decision.events]
    # What they are released with stands there too.
    spare = len(units) * len(longest(desk_api.ReleaseBody, "note").encode())
    assert max(len(event.body()) for event in events) + spare < LONGEST_BODY


def test_who_lost_what_the_units_did_is_told_it_again() -> None:
    held, said = custody(reported(), blow(entry(), UNIT).events[0])
    came = done(at_unit(called(said)[0]), "check_in").events[0]
    document = custodian.decide(custodian.merge(held, came, NOW), COUNTY, NOW).document
    assert document is not None
    token = Token.of(document["state"]["token"])
    place = reconciliation.Place("case-1", 1, 0)
    for kind, level in (("entry_missing", "village"), ("register_behind", "")):
        finding = reconciliation.Finding(kind, "case-1", token, None, level, place)
        work = reconciliation.repair(finding, COUNTY, NOW)
        (event,) = work.change(Record("case-1", 1, document)).events
        event = Event.read(event.body())
        merge = dispatch.merge if level else intake.merge
        known = merge(None, event)["progress"]
        assert [item["checked_in"]["by"] for item in known.values()] == ["u-1"]


def test_a_custodian_that_has_forgotten_is_told_what_the_unit_did() -> None:
    whistled = blow(entry(), UNIT).events[0]
    _held, said = custody(reported(), whistled)
    (call,) = called(said)
    document = done(at_unit(call), "check_in").document
    assert document is not None
    # The same once more is a redelivery; another is of a custodian that was restored.
    assert desk_calls.heard(document, call, COUNTY, NOW).events == ()
    anew = replace(call, id="another")
    decision = desk_calls.heard(document, anew, COUNTY, plus(NOW, 60))
    (told,) = decision.events
    assert (told.type, told.data["progress"]["checked_in"]["at"]) == ("case.checked_in", NOW)
    assert told.id != done(at_unit(call), "check_in").events[0].id
    assert desk_calls.heard(decision.document, anew, COUNTY, NOW).events == ()
    restored, _all = custody(reported(), whistled, told)
    (known,) = restored["calls"].values()
    assert known["checked_in"]["by"] == "u-1"
