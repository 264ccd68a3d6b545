"""The custodian's decisions, one rule at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Unpublished
from services.dispatch import model as dispatch
from services.escalation import model
from services.escalation.firing import SLACK_SECONDS, Markers
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.events import Event
from services.grid.profile import Profile
from services.grid.tokens import Address, Token
from tests.simulator.county import atlas, with_successor
from tests.simulator.world import World

ATLAS = atlas()
START = FrozenClock().now()
HOUR = 3600.0
TOWNSHIP = Address("township", "469002104")


def reported(at: Instant = START, county: Atlas = ATLAS) -> Event:
    """``case.reported`` as intake sends it at ``at``."""
    world = World(county)
    world.clock.set(at)
    world.report("case-1")
    return Event.read(world.published[0].body)


def custody(received: Instant = START, county: Atlas = ATLAS) -> Document:
    merged = model.merge(None, reported(county=county), received)
    document = model.decide(merged, county, received).document
    assert document is not None
    return document


def record(document: Document, **more: Any) -> Record:
    return Record("case-1", 1, document, **more)


def fired(
    document: Document, now: Instant, horizon: Instant | None = None, **more: Any
) -> Decision:
    return model.fire(record(document, **more), ATLAS, now, horizon or now)


def types(decision: Decision) -> list[str]:
    return [event.type.partition(".")[2] for event in decision.events]


def done(decision: Decision) -> Document:
    assert decision.document is not None
    return decision.document


def at_the_top() -> tuple[Document, Instant]:
    """A case that nobody answered, when it has just come to the township."""
    document, now = custody(), START
    for hours in (2, 2, 4):
        now = plus(now, hours * HOUR)
        document = done(fired(document, now))
    assert document["state"]["address"] == TOWNSHIP.as_dict()
    return document, now


def test_it_is_armed_as_soon_as_custody_is_sent() -> None:
    assert custody()["next_due"] == plus(START, 2 * HOUR)


def test_nothing_fires_before_it_is_due() -> None:
    decision = fired(custody(), plus(START, 2 * HOUR - 0.001))
    assert decision.events == []
    assert decision.document == custody()


def test_what_passes_moves_it_up_on_nominal_time() -> None:
    now = plus(START, 2 * HOUR + 90)
    decision = fired(custody(), now)
    assert types(decision) == ["deadline_passed", "escalated", "released"]
    document = done(decision)
    assert document["state"]["address"]["level"] == "group"
    assert document["state"]["clocks"]["level"]["started_at"] == plus(START, 2 * HOUR)
    assert document["state"]["clocks"]["case"]["started_at"] == START
    assert document["next_due"] == plus(START, 4 * HOUR)
    passed, escalated, released = decision.events
    assert passed.data["passed"]["due"] == plus(START, 2 * HOUR)
    assert passed.data["passed"]["fired_at"] == now
    assert escalated.key == "case.escalated.group.46.90.02.104.214.03"
    assert released.key == "case.released.household.46.90.02.104.214.03.007"
    assert released.data["released"]["why"] == "custody"


def test_it_fires_once_in_effect() -> None:
    now = plus(START, 2 * HOUR)
    first = fired(custody(), now)
    assert types(fired(done(first), now)) == []
    # Two replicas that read the same document come to the same events with the same ids.
    again = fired(custody(), plus(now, 5))
    assert [event.id for event in again.events] == [event.id for event in first.events]


def test_only_what_was_due_by_the_marker_fires() -> None:
    now = plus(START, 3 * HOUR)
    assert types(fired(custody(), now, horizon=plus(START, HOUR))) == []
    assert "escalated" in types(fired(custody(), now, horizon=plus(START, 2 * HOUR)))


def test_nothing_fires_while_a_custody_event_is_unpublished() -> None:
    now = plus(START, 2 * HOUR)
    moved = fired(custody(), now)
    waiting = tuple(Unpublished(event, 0.0) for event in moved.events)
    later = plus(now, 24 * HOUR)
    assert types(fired(done(moved), later, unpublished=waiting)) == []
    assert "escalated" in types(fired(done(moved), later, confirmed=now))


def test_after_an_outage_each_level_gets_its_grace_after_the_confirm() -> None:
    late = plus(START, 100 * HOUR)
    document = done(fired(custody(), late))
    assert document["state"]["address"]["level"] == "group"
    # Nominally due long ago, it waits for the grace of the profile, ten minutes.
    assert document["next_due"] == plus(late, 600)
    confirmed = plus(late, 30)
    early = fired(document, plus(late, 601), confirmed=confirmed)
    assert types(early) == []
    assert done(early)["next_due"] == plus(confirmed, 600)
    assert "escalated" in types(fired(document, plus(confirmed, 600), confirmed=confirmed))


def test_after_a_stop_and_a_long_jump_of_the_clock_nothing_more_fires_for_the_grace() -> None:
    """It was away for a month, comes back, and looks at the case every minute."""
    back = plus(START, 30 * 86400)
    document = done(fired(custody(), back))
    assert document["state"]["address"]["level"] == "group"
    for minute in range(10):
        looked = fired(document, plus(back, 60 * minute), confirmed=back)
        assert types(looked) == [], minute
        assert done(looked)["next_due"] == plus(back, 600)
    again = fired(document, plus(back, 600), confirmed=back)
    assert types(again) == ["deadline_passed", "escalated", "released"]


def test_a_level_with_less_time_than_the_grace_gets_its_own() -> None:
    rules: dict[str, Any] = {"grace": "5h"}
    county = atlas(**rules)
    document = custody(county=county)
    late = plus(START, 100 * HOUR)
    moved = model.fire(record(document), county, late, late)
    assert done(moved)["next_due"] == plus(late, 2 * HOUR)


def test_an_acknowledgement_leaves_the_resolve_deadline() -> None:
    document = merge_act(custody(), acknowledged=True)
    assert document["next_due"] == plus(START, 12 * HOUR)
    reminder = fired(document, plus(START, 12 * HOUR))
    assert types(reminder) == ["reminded"]
    assert done(reminder)["next_due"] == plus(START, 24 * HOUR)
    assert types(fired(done(reminder), plus(START, 24 * HOUR)))[:2] == [
        "deadline_passed",
        "escalated",
    ]


def test_a_reminder_that_was_missed_together_with_its_deadline_says_nothing() -> None:
    document = merge_act(custody(), acknowledged=True)
    assert types(fired(document, plus(START, 48 * HOUR)))[0] == "deadline_passed"


def test_the_last_level_is_supervised_and_missed_repeats_are_one() -> None:
    document, now = at_the_top()
    due = document["next_due"]
    decision = fired(document, due)
    assert types(decision) == ["deadline_passed", "supervised"]
    told = decision.events[-1].data
    assert (told["times"], told["passed"]["count"], told["tell"]) == (1, 1, ["469002"])
    document = done(decision)
    assert document["next_due"] == plus(due, 24 * HOUR)
    late = plus(due, 24 * HOUR * 3 + 60)
    decision = fired(document, late)
    assert types(decision) == ["supervised"]
    told = decision.events[-1].data
    assert (told["times"], told["passed"]["count"]) == (4, 3)
    assert done(decision)["next_due"] == plus(due, 24 * HOUR * 4)
    assert now < due


def test_a_case_that_stays_open_for_years_does_not_grow_with_each_supervision() -> None:
    document, _now = at_the_top()
    sizes = []
    for _ in range(300):
        decision = fired(document, document["next_due"])
        document = done(decision)
        assert [item["fired_at"] for item in decision.answer] == [document["supervision"]["last"]]
        sizes.append(len(document["history"]))
        assert types(decision)[-1] == "supervised"
    assert sizes[-1] == sizes[-100] < 120
    rows = model.explain(document)
    fired_at = [row["due"] for row in rows if row["status"] == "fired"]
    assert {"acknowledge", "resolve"} <= {row["kind"] for row in rows if row["status"] == "fired"}
    assert max(fired_at) == document["supervision"]["last"]


def test_supervision_of_a_missed_acknowledgement_ends_with_the_acknowledgement() -> None:
    document, _now = at_the_top()
    resolve_due = max(item["due"] for item in document["state"]["deadlines"])
    document = done(fired(document, document["next_due"]))
    document = merge_act(document, acknowledged=True)
    assert document["next_due"] == resolve_due
    again = fired(document, resolve_due)
    assert types(again) == ["deadline_passed", "supervised"]


def test_a_resolution_disarms_and_a_late_one_wins_over_the_climb() -> None:
    assert merge_act(custody(), resolved=True)["next_due"] is None
    moved = done(fired(custody(), plus(START, 2 * HOUR)))
    late = merge_act(moved, resolved=True, hop=0, base=custody())
    assert late["state"]["token"]["stage"] == "resolved"
    assert late["late_custody"]
    assert [item["released"] for item in late["seen"]] == ["custody", "custody"]
    assert types(fired(late, plus(START, 900 * HOUR))) == []


def test_requests_are_granted_kept_or_refused() -> None:
    granted = ask(custody(), hop=0)
    assert types(granted) == ["escalated", "released"]
    assert granted.events[0].data["reason"] == "requested"
    assert done(granted)["state"]["clocks"]["level"]["started_at"] == plus(START, 60)
    moved = done(fired(custody(), plus(START, 2 * HOUR)))
    late = ask(moved, hop=0)
    assert types(late) == ["refused"]
    assert late.events[0].data["why"] == "too_late"
    assert late.events[0].key.startswith("case.refused.household.")
    assert types(ask(done(late), hop=0)) == []
    # The village has nobody on duty: it is passed by.
    skipping = atlas(unstaffed="skip")
    at_group = done(model.fire(record(custody(county=skipping)), skipping, DUE, DUE))
    row = next(row for row in model.explain(at_group) if row["status"] == "armed")
    assert model.reaches(at_group, row, skipping, START)["address"]["level"] == "township"
    top, _now = at_the_top()
    assert ask(top, hop=3).events[0].data["why"] == "last_level"


def test_a_fast_clock_elsewhere_is_taken_back() -> None:
    ahead = reported(plus(START, HOUR))
    document = model.merge(None, ahead, START)
    assert document["seen"][0]["ahead"] == HOUR
    armed = done(model.decide(document, ATLAS, START))
    assert armed["next_due"] == plus(START, 2 * HOUR)
    assert model.explain(armed)[0]["due"] == plus(START, 2 * HOUR)
    # For itself alone: what it passes on is what intake said.
    assert armed["state"] == ahead.data["state"]
    # What the desk sends later, on the same fast clock, changes nothing about it.
    acted = merge_act(armed, acknowledged=True, base=None)
    assert acted["next_due"] == plus(START, 12 * HOUR)


def test_every_deadline_can_be_explained() -> None:
    document = done(fired(custody(), plus(START, 2 * HOUR)))
    rows = {(row["level"], row["kind"]): row for row in model.explain(document)}
    assert rows["household", "acknowledge"]["status"] == "fired"
    assert rows["household", "resolve"]["status"] == "void"
    assert rows["group", "acknowledge"]["status"] == "armed"
    acted = merge_act(custody(), acknowledged=True)
    rows = {(row["level"], row["kind"]): row for row in model.explain(acted)}
    assert rows["household", "acknowledge"]["status"] == "met"
    assert all(row["rule"] and row["source"] for row in model.explain(document))


@pytest.mark.parametrize("scale", [1.0, 600.0])
def test_markers_say_how_far_it_has_read(scale: float) -> None:
    class Clock(FrozenClock):
        def real_seconds(self, virtual_seconds: float) -> float:
            return virtual_seconds / scale

    clock = Clock()
    markers = Markers(clock)
    assert markers.horizon(None) is None
    marker = markers.next()
    clock.advance(100 * scale)
    assert markers.horizon(None) is None
    markers.came_back(marker)
    assert markers.horizon(None) == plus(START, SLACK_SECONDS * scale)
    # One from before the clock was set back says no more than now.
    fast = {"by": markers.by, "at": plus(clock.now(), 9e5)}
    markers.came_back(Event(**{**marker.as_document(), "data": fast}))
    assert markers.horizon(None) == clock.now()
    # An older one that comes late takes nothing back.
    markers.came_back(marker)
    assert markers.horizon(None) == clock.now()


def merge_act(
    document: Document,
    *,
    acknowledged: bool = False,
    resolved: bool = False,
    hop: int | None = None,
    base: Document | None = None,
) -> Document:
    """The custody after an act of the desk that holds (or, with ``hop``, held) the case."""
    state = (base or document)["state"]
    token = Token.of(state["token"])
    assert hop in (None, token.hop)
    changes: dict[str, Any] = {"token": {**token.act().as_dict()}}
    at = document["received_at"]
    if acknowledged:
        changes["acknowledged"] = {"by": "h-1", "at": at}
        changes["deadlines"] = [
            item
            for item in state["deadlines"]
            if "acknowledge" not in (item["kind"], item.get("of"))
        ]
    if resolved:
        changes["token"]["stage"] = "resolved"
        changes["deadlines"] = []
        changes["resolution"] = {"outcome": "settled", "note": "", "by": "h-1", "at": at}
    event = Event(
        id="act",
        type="case.resolved" if resolved else "case.acknowledged",
        subject="case-1",
        time=at,
        source="huashi/test",
        data={"case": document["facts"], "state": {**state, **changes}},
    )
    return done(model.decide(model.merge(document, event, at), ATLAS, at))


def ask(document: Document, hop: int, round_: int = 1) -> Decision:
    """What the custodian decides when the desk of ``hop`` asks to escalate."""
    at = plus(document["received_at"], 60)
    seen = next(item for item in document["seen"] if item["hop"] == hop)
    token = Token(round_, Token.of(seen["token"]).stage, hop, 1).as_dict()
    state = {**document["state"], "token": token, "address": seen["address"]}
    request = {
        "id": f"request-{round_}-{hop}",
        "action": "escalate",
        "to": None,
        "reason": "unstaffed",
        "by": "desk:household",
    }
    event = Event(
        id="request",
        type="case.requested",
        subject="case-1",
        time=at,
        source="huashi/test",
        data={"case": document["facts"], "state": state, "request": request},
    )
    return model.decide(model.merge(document, event, at), ATLAS, at)


def test_what_another_replica_has_read_of_its_markers_counts_too() -> None:
    markers = Markers(FrozenClock(plus(START, 60)))
    assert markers.horizon(START) == plus(START, SLACK_SECONDS)
    assert markers.horizon(plus(START, 60)) == plus(START, 60)
    # Said before its clock was set back: nobody can have read up to there.
    assert markers.horizon(plus(START, 3600)) is None


def test_replicas_share_all_shards_and_none_twice() -> None:
    living = ["b", "a", "c"]
    shares = [model.share(replica, living) for replica in living]
    assert sorted(number for found in shares for number in found) == list(range(model.SHARDS))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # Who is not in the list yet, because it only just said that it lives, counts itself.
    assert model.share("new", []) == tuple(range(model.SHARDS))
    assert set(model.share("d", living)).isdisjoint(model.share("a", [*living, "d"]))


def test_a_case_stays_in_its_shard() -> None:
    document = custody()
    assert document["shard"] == model.shard("case-1")
    assert 0 <= document["shard"] < model.SHARDS


DUE = plus(START, 2 * HOUR)


def moved_on() -> Document:
    return done(fired(custody(), DUE))


def told(*acts: Callable[[World], object]) -> Document:
    """The custody after these acts at the household, all heard."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    for act in acts:
        act(world)
        world.settle()
    return world.nodes["escalation"].store.documents()["case-1"]


def at_home(action: str) -> Callable[[World], object]:
    return lambda world: world.act("household", world.entries("household")[0], action)


SUSPENDED = told(at_home("suspend"))
REOPENED = told(at_home("resolve"), lambda world: world.reopen("case-1"))


def test_a_suspension_moves_what_is_armed_and_a_resumption_brings_it_back() -> None:
    later = plus(DUE, 2 * 86400)
    assert SUSPENDED["next_due"] == later
    assert told(at_home("suspend"), at_home("resume"))["next_due"] == DUE
    rows = [(row["kind"], row["due"], row["status"]) for row in model.explain(SUSPENDED)]
    assert ("acknowledge", DUE, "moved") in rows
    assert ("acknowledge", later, "armed") in rows


def test_a_suspended_case_that_nobody_resumes_climbs_after_its_longest_time() -> None:
    decision = fired(SUSPENDED, plus(DUE, 2 * 86400))
    assert types(decision) == ["deadline_passed", "escalated", "released"]
    state = done(decision)["state"]
    assert "suspension" not in state
    assert state["clocks"]["level"] == {"started_at": plus(DUE, 2 * 86400)}
    # Its own clock stood as long, and runs again.
    assert [item["ends"] for item in state["clocks"]["case"]["pauses"]] == [plus(START, 2 * 86400)]


def test_while_the_last_level_waits_nobody_is_told_again() -> None:
    document, now = at_the_top()
    supervised = done(fired(document, plus(now, 4 * HOUR)))
    again = supervised["supervision"]["due"]
    until = plus(again, HOUR)
    pause = {"starts": plus(now, 5 * HOUR), "ends": until, "reason": "waiting"}
    clocks = supervised["state"]["clocks"]
    state = {
        **supervised["state"],
        "clocks": {**clocks, "level": {**clocks["level"], "pauses": [pause]}},
    }
    waiting = {**supervised, "state": state}
    assert [item["due"] for item in model._repeat(waiting)] == [until]


NEW = with_successor(ATLAS)
(VERSION,) = set(NEW.profiles) - set(ATLAS.profiles)


def migrated(document: Document, now: Instant = START) -> Decision:
    return model.migrate(record(document), VERSION, NEW, now)


def test_a_migrated_case_stays_with_its_holder_under_the_new_deadlines() -> None:
    acknowledged = merge_act(custody(), acknowledged=True)
    decision = migrated(acknowledged, plus(START, HOUR))
    assert types(decision) == ["transferred", "released"]
    before, after = acknowledged["state"], done(decision)["state"]
    for name in ("address", "acknowledged", "clocks"):
        assert after[name] == before[name]
    assert after["token"] == {"round": 1, "stage": "held", "hop": 1, "seq": 0}
    assert "acknowledge" not in {item["kind"] for item in after["deadlines"]}
    assert done(migrated(custody(), plus(START, 60)))["next_due"] == plus(START, HOUR)
    assert types(migrated(done(decision), plus(START, 2 * HOUR))) == []


def test_a_migrated_case_whose_level_is_gone_enters_the_new_ladder() -> None:
    at_group = done(fired(custody(), plus(START, 2 * HOUR)))
    decision = migrated(at_group, plus(START, 3 * HOUR))
    assert done(decision)["state"]["address"]["level"] == "village"
    assert decision.answer["before"]["address"]["level"] == "group"
    assert done(decision)["state"]["clocks"]["level"] == {"started_at": plus(START, 3 * HOUR)}


def all_fired(document: Document, now: Instant, county: Atlas = NEW) -> tuple[Document, list[str]]:
    """A case when all that was due has fired, and what was said of it."""
    said: list[str] = []
    while found := types(decision := model.fire(record(document), county, now, now)):
        document, said = done(decision), said + found
    return done(decision), said


def to_and_fro(document: Document, county: Atlas, now: Instant) -> list[str]:
    """What is said of a case that is migrated three times, with time to fire after each."""
    said: list[str] = []
    for _ in range(3):
        (other,) = set(county.profiles) - {document["facts"]["profile"]}
        document = done(model.migrate(record(document), other, county, now))
        now = plus(now, 12 * 60)
        document, more = all_fired(document, now, county)
        said += more
    return said


def test_what_fired_fires_no_more_however_often_a_case_is_migrated() -> None:
    document, came = at_the_top()
    now = plus(came, 8 * 24 * HOUR)
    document, said = all_fired(document, now)
    assert said.count("deadline_passed") == 2
    assert to_and_fro(document, NEW, now) == []


def test_what_another_custodian_fired_by_a_faster_clock_fires_no_more() -> None:
    document, _came = at_the_top()
    passes = max(item["due"] for item in document["state"]["deadlines"])
    document, said = all_fired(document, passes)
    assert said.count("deadline_passed") == 2
    document = done(model.migrate(record(document), VERSION, NEW, plus(passes, -20)))
    assert all_fired(document, plus(passes, HOUR))[1] == []


def test_what_fired_before_a_migration_fires_no_more_when_the_desk_counts_anew() -> None:
    document, came = at_the_top()
    now = plus(came, 8 * 24 * HOUR)
    document, _said = all_fired(document, now)
    moved = model.migrate(record(document), VERSION, NEW, now)
    entry = dispatch.decide(dispatch.merge(None, moved.events[0]), NEW, now).document
    assert entry is not None
    act = dispatch.suspend(entry, "t-1", "waiting", "", atlas=NEW, now=now)
    assert "resolve" in {item["kind"] for item in act.events[0].data["state"]["deadlines"]}
    now = plus(now, 12 * 60)
    document = done(model.decide(model.merge(done(moved), act.events[0], now), NEW, now))
    document, said = all_fired(document, now)
    assert said == []
    fires = [row["kind"] for row in model.explain(document) if row["hop"] == 3]
    assert fires.count("resolve") == 1
    assert {row["status"] for row in model.explain(document) if row["hop"] == 4} == {"armed"}


def test_a_reminder_is_one_reminder_however_often_a_case_is_migrated() -> None:
    (held,) = ATLAS.current
    first, *others = held.rules["deadlines"]
    county = with_successor(atlas(deadlines=[{**first, "remind": ["10m after"]}, *others]))
    now = plus(START, 12 * 60)
    document, said = all_fired(custody(county=county), now, county)
    assert said == ["reminded"]
    assert to_and_fro(document, county, now) == []


def test_what_passed_at_the_end_of_a_ladder_is_no_reason_to_stay_when_it_goes_on() -> None:
    (held,) = ATLAS.current
    ladder = [*held.rules["ladders"]["default"], {"level": "county", "title": "county"}]
    *lines, last = held.rules["deadlines"]
    lines += [{**last, "level": "county"}, {name: last[name] for name in last if name != "then"}]
    longer = Profile.parse({**held.rules, "ladders": {"default": ladder}, "deadlines": lines})
    county = Atlas(ATLAS.directory, {held.id: held, longer.id: longer}, [longer.id])
    document, came = at_the_top()
    now = plus(came, 8 * 24 * HOUR)
    document, _said = all_fired(document, now)
    document = done(model.migrate(record(document), longer.id, county, now))
    document, said = all_fired(document, plus(now, HOUR), county)
    assert said == ["deadline_passed", "escalated", "released"]
    assert document["state"]["address"]["level"] == "county"


def test_an_armed_deadline_says_whom_it_would_reach() -> None:
    document = custody()
    rows = {row["kind"]: row for row in model.explain(document)}
    climbs = model.reaches(document, rows["resolve"], ATLAS, START)
    assert (climbs["address"]["level"], climbs["officers"], climbs["tell"]) == (
        "group",
        ["g-1"],
        [],
    )
    reminded = model.reaches(document, rows["remind"], ATLAS, START)
    assert reminded["address"]["level"] == "household"
    # The village has nobody on duty: it is passed by.
    skipping = atlas(unstaffed="skip")
    at_group = done(model.fire(record(custody(county=skipping)), skipping, DUE, DUE))
    row = next(row for row in model.explain(at_group) if row["status"] == "armed")
    assert model.reaches(at_group, row, skipping, START)["address"]["level"] == "township"
    top, _now = at_the_top()
    assert {row["profile"] for row in rows.values()} == {document["facts"]["profile"]}
    assert model.reaches(top, model.explain(top)[-1], ATLAS, START)["tell"] == ["469002"]


def test_what_has_ended_is_not_migrated() -> None:
    with pytest.raises(Refused, match="ended"):
        migrated(merge_act(custody(), resolved=True))


def test_a_case_that_was_reopened_after_weeks_does_not_rush_up() -> None:
    """What its round before has passed says nothing of the levels above in this one."""
    weeks = 30 * 86400
    document = told(
        at_home("acknowledge"),
        lambda world: world.clock.advance(20 * HOUR),
        at_home("resolve"),
        lambda world: world.clock.advance(weeks),
        lambda world: world.reopen("case-1"),
    )
    began = plus(START, 20 * HOUR + weeks)
    assert document["next_due"] == plus(began, 4 * HOUR)
    up = done(fired(document, plus(began, 4 * HOUR)))
    assert up["state"]["address"]["level"] == "group"
    assert up["next_due"] == plus(began, 6 * HOUR)
    assert [item["reason"] for item in up["state"]["clocks"]["case"]["pauses"]] == ["ended"]


def test_custody_from_before_a_deadline_had_its_last_act_is_read() -> None:
    document = custody()
    seen = [
        {
            **item,
            "deadlines": [
                {k: v for k, v in row.items() if k != "last_seq"} for row in item["deadlines"]
            ],
        }
        for item in document["seen"]
    ]
    old = {**document, "seen": seen}
    assert merge_act(old, acknowledged=True)["next_due"] == plus(START, 12 * HOUR)
    assert model.explain(old)


CASES: dict[str, tuple[Document, Instant, list[str]]] = {
    "due": (custody(), DUE, ["deadline_passed", "escalated", "released"]),
    "not due": (custody(), plus(DUE, -1), []),
    "acknowledged": (merge_act(custody(), acknowledged=True), DUE, []),
    "resolved": (merge_act(custody(), resolved=True), plus(DUE, 86400), []),
    "suspended": (SUSPENDED, DUE, []),
    "reopened": (REOPENED, plus(START, 86400), ["deadline_passed", "escalated", "released"]),
    # The household's time, once the group has it: the same hop never fires again.
    "released": (moved_on(), DUE, []),
}


@pytest.mark.parametrize("state", CASES)
@pytest.mark.parametrize("how", ["first delivery", "redelivery", "other replica"])
def test_what_fires_fires_once_however_often_it_is_tried(state: str, how: str) -> None:
    document, now, expected = CASES[state]
    first = fired(document, now)
    assert types(first) == expected
    if how == "redelivery":
        # The report comes once more, and the custodian looks once more.
        again = model.decide(model.merge(done(first), reported(), now), ATLAS, now)
        assert types(again) == []
        assert types(fired(done(again), now)) == []
    elif how == "other replica":
        # It read the same document: what it decides has the same ids, and its write is refused.
        rival = fired(document, plus(now, 0.2))
        assert [event.id for event in rival.events][: len(expected)] == [
            event.id for event in first.events
        ]
        # It reads again: there is nothing left to do.
        assert types(fired(done(first), plus(now, 0.2))) == []


def walk(*moves: tuple[str, str]) -> World:
    """A case after these requests, ``(level, action)``, all heard, a minute apart."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    for level, action in moves:
        world.clock.advance(60)
        assert world.act(level, world.entries(level)[-1], action), (level, action)
        world.settle()
    return world


def held(world: World) -> Document:
    return world.nodes["escalation"].store.documents()["case-1"]


def last(world: World, kind: str) -> Event:
    return next(sent.event for sent in reversed(world.published) if sent.event.type == kind)


UP = (("household", "escalate"), ("group", "escalate"))


def test_a_delegated_case_starts_the_levels_clock_and_climbs_again() -> None:
    world = walk(*UP, ("village", "delegate"))
    granted = plus(START, 180)
    event, document = last(world, "case.delegated"), held(world)
    assert event.key == "case.delegated.group.46.90.02.104.214.03"
    assert (event.data["reason"], event.data["request"]["reason"]) == ("requested", "就近处理")
    assert event.data["previous"]["level"] == "village"
    clocks = document["state"]["clocks"]
    assert (clocks["level"]["started_at"], clocks["case"]["started_at"]) == (granted, START)
    assert document["next_due"] == plus(granted, 2 * HOUR)
    climbed = fired(document, document["next_due"])
    assert types(climbed) == ["deadline_passed", "escalated", "released"]
    assert done(climbed)["state"]["address"]["level"] == "village"


def test_a_transferred_case_is_assigned_in_the_unit() -> None:
    world = walk(*UP, ("village", "escalate"), ("township", "transfer"))
    state = held(world)["state"]
    assert state["address"] == {"level": "township", "division": "469002104", "unit": "centre"}
    assert state["assigned"]["officer"] == "u-1"
    assert last(world, "case.transferred").data["reason"] == "requested"


def test_a_returned_case_goes_to_who_sent_it_and_from_there_to_who_sent_it_before() -> None:
    world = walk(*UP, ("village", "delegate"), ("group", "return"))
    assert held(world)["state"]["address"]["level"] == "village"
    world.clock.advance(60)
    # The village had it from the group, which had escalated it.
    assert world.act("village", world.entries("village")[-1], "return")
    world.settle()
    assert held(world)["state"]["address"]["level"] == "group"
    assert world.act("group", world.entries("group")[-1], "return")
    world.settle()
    assert held(world)["state"]["address"]["level"] == "household"
    told = last(world, "case.supervised").data
    assert told["passed"]["kind"] == "returned"
    assert (told["times"], told["tell"]) == (1, ["469002"])
    assert told["supervisor"]["by"] == "profile.yaml returns, 3 times"
    # Nobody sent it to the household, and it was sent back as often as it may be.
    world.act("household", world.entries("household")[-1], "return")
    world.settle()
    assert last(world, "case.refused").data["why"] == "returned_too_often"
    assert held(world)["state"]["address"]["level"] == "household"


def test_who_had_it_first_can_return_it_to_nobody() -> None:
    world = walk(("household", "escalate"), ("group", "return"))
    world.act("household", world.entries("household")[-1], "return")
    world.settle()
    assert last(world, "case.refused").data["why"] == "nobody_sent_it"
    (entry,) = [
        item
        for item in world.nodes["household"].store.documents().values()
        if item["status"] == "live"
    ]
    assert entry["request"]["answer"] == "refused"


def test_what_moved_before_senders_were_kept_came_from_the_hop_before() -> None:
    world = walk(*UP)
    document = held(world)
    names = ("how", "sender", "granted")
    old = [{name: item[name] for name in item if name not in names} for item in document["seen"]]
    asked = world.act("village", world.entries("village")[-1], "return")
    assert asked
    request = last(world, "case.requested")
    decision = model.decide(model.merge({**document, "seen": old}, request, START), ATLAS, START)
    assert types(decision) == ["returned", "released"]
    assert done(decision)["state"]["address"]["level"] == "group"


def test_a_place_that_the_custodian_does_not_know_is_refused() -> None:
    world = walk(*UP)
    assert world.act("village", world.entries("village")[-1], "delegate")
    request = last(world, "case.requested")
    wrong = {
        **request.data["request"],
        "to": {"level": "group", "division": "469002999", "unit": None},
    }
    event = Event(**{**request.as_document(), "data": {**request.data, "request": wrong}})
    decision = model.decide(model.merge(held(world), event, START), ATLAS, START)
    assert types(decision) == ["refused"]
    assert decision.events[0].data["why"] == "no_such_place"


def supervised(document: Document, reason: str = "久拖不决", **more: Any) -> Decision:
    at = more.pop("at", plus(START, 60))
    return model.supervise(document, more.pop("by", "t-1"), reason, atlas=ATLAS, now=at, **more)


def test_a_person_supervises_at_any_level_and_it_is_repeated_whoever_holds_it() -> None:
    decision = supervised(custody())
    (told,) = decision.events
    assert Event.read(told.body()).data["supervisor"] == {"by": "t-1", "reason": "久拖不决"}
    assert (told.data["passed"]["kind"], told.data["tell"]) == ("asked", ["469002"])
    assert supervised(done(decision)).events == ()
    assert types(supervised(done(decision), by="t-2")) == ["supervised"]
    # The last level's rule says how often: each day. The case climbs meanwhile.
    document = merge_act(done(decision), acknowledged=True)
    document = done(fired(document, plus(START, 24 * HOUR)))
    assert document["state"]["address"]["level"] == "group"
    assert document["supervision"]["due"] == plus(START, 60 + 24 * HOUR)
    again = fired(document, plus(START, 601 + 24 * HOUR))
    assert types(again) == ["supervised"]
    assert done(again)["supervision"]["times"] == 2
    rows = [row for row in model.explain(document) if row["kind"] == "supervise"]
    assert [(row["rule"], row["status"]) for row in rows] == [("t-1", "armed")]
    assert model.reaches(document, rows[0], ATLAS, START)["tell"] == ["469002"]


def test_who_supervises_again_says_so_with_another_reason_or_key() -> None:
    document = done(supervised(custody(), key="k-1"))
    assert supervised(document, key="k-1", at=plus(START, 90)).events == ()
    assert types(supervised(document, key="k-2")) == ["supervised"]
    assert types(supervised(document, "还没有人去")) == ["supervised"]
    with pytest.raises(Refused, match="was used for another reason") as raised:
        supervised(document, "还没有人去", key="k-1")
    assert raised.value.facts == {"held_by": document["state"]["address"]}
    assert types(supervised(document, "还没有人去", key="k-1", by="t-2")) == ["supervised"]


def test_an_ended_case_is_not_supervised() -> None:
    with pytest.raises(Refused, match="has ended"):
        supervised(merge_act(custody(), resolved=True))
