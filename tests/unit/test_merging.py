"""Merging of duplicates, one rule at a time: who follows whom, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from threading import Semaphore
from types import SimpleNamespace
from typing import Any

import pytest

from services.bus.errors import Refused
from services.bus.fold import Document
from services.escalation import duplicates, merging, model
from services.grid import deadlines
from services.grid.calendars import Pause
from services.grid.clock import Instant, plus
from services.grid.events import Event
from services.grid.tokens import Address
from services.notify import model as notify
from tests.simulator import invariants
from tests.simulator.county import RULES, atlas
from tests.simulator.world import Step, World

HOUR = 3600.0
_SOONER = [
    {
        "level": "household",
        "when": {"urgency": "urgent"},
        "acknowledge": "30m",
        "resolve": "3h",
        "source": "assumption",
    },
    *RULES["deadlines"],
]
ATLAS = atlas(deadlines=_SOONER)
VILLAGE = "469002104214"


class Matter(World):
    """A county where cases are reported minutes apart; all is read after each step."""

    def __init__(self, *urgencies: str, apart: float = 600, dead: tuple[str, ...] = ()) -> None:
        super().__init__(ATLAS, dead=dead)
        for number, urgency in enumerate(urgencies, 1):
            self.report(f"case-{number}", urgency)
            self.settle()
            self.clock.advance(apart)

    def one(self, first: int, second: int) -> None:
        assert self.merge((f"case-{first}", f"case-{second}"))
        self.settle()
        invariants.all_hold(self)

    def held(self, number: int) -> Document:
        return self.nodes["escalation"].store.documents()[f"case-{number}"]

    def follows(self, number: int) -> str | None:
        found: str | None = self.held(number)["facts"].get("follows")
        return found

    def followers(self, number: int) -> list[str]:
        shown = self.nodes["intake"].store.documents()[f"case-{number}"]
        found: list[str] = shown["merged"]["followers"]
        return found

    def status(self, number: int) -> str:
        shown: str = self.nodes["intake"].store.documents()[f"case-{number}"]["status"]
        return shown

    def entry(self, number: int) -> tuple[str, str]:
        """The level and the key of a case's live entry."""
        level = self.held(number)["state"]["address"]["level"]
        keys = [key for key in self.entries(level) if key.startswith(f"case-{number}:")]
        return level, keys[0]

    def does(self, number: int, action: str) -> None:
        assert self.act(*self.entry(number), action)
        self.settle()

    def due(self, number: int, kind: str = "resolve") -> dict[str, Any]:
        found = self.held(number)["state"]["deadlines"]
        return next(item for item in found if item["kind"] == kind)

    def events(self, kind: str, number: int) -> list[Event]:
        case = f"case-{number}"
        found = {
            sent.event.id: sent.event
            for sent in self.published
            if (sent.event.type, sent.event.subject) == (kind, case)
        }
        return list(found.values())

    def passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.second()
        self.settle()


@pytest.mark.parametrize("named", [(1, 2), (2, 1)])
def test_the_older_case_is_kept_whichever_is_named_first(named: tuple[int, int]) -> None:
    world = Matter("ordinary", "ordinary")
    before = world.held(2)["state"]
    world.one(*named)
    assert (world.follows(1), world.follows(2)) == (None, "case-1")
    (said,) = world.events("case.followed", 2)
    assert said.data["following"]["by"] == "officer"
    (merged,) = world.events("case.merged", 1)
    assert merged.data["merged"] == {"followers": ["case-2"], "version": 1}
    # It is held by the same people, until the same time, and nothing changes for the other.
    after = world.held(2)["state"]
    assert {**after, "token": 0} == {**before, "token": 0}
    assert world.held(1)["state"]["token"]["hop"] == 0
    # Again, and the other way round, it is the same merge.
    count = len(world.published)
    world.one(*reversed(named))
    world.one(*named)
    assert len(world.published) == count
    _level, key = world.entry(1)
    assert world.nodes["household"].store.documents()[key]["merged"]["followers"] == ["case-2"]


def test_of_two_that_were_reported_at_once_the_first_by_id_is_kept() -> None:
    world = Matter("ordinary", "ordinary", apart=0)
    world.one(2, 1)
    assert (world.follows(1), world.follows(2)) == (None, "case-1")


def test_the_kept_one_is_resolved_and_so_is_its_follower_each_reporter_is_asked() -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(1, "resolve")
    assert (world.status(1), world.status(2)) == ("resolved", "resolved")
    resolutions = [world.held(number)["state"]["resolution"] for number in (1, 2)]
    names = ("outcome", "note", "by")
    assert [resolutions[0][name] for name in names] == [resolutions[1][name] for name in names]
    assert resolutions[1]["followed"] == "case-1"
    register = world.nodes["intake"].store.documents()
    assert all(register[case]["closing"]["due"] for case in ("case-1", "case-2"))
    # Each reporter says for themselves: who reported the older one is not satisfied.
    assert world.feedback("case-1", satisfied=False)
    world.settle()
    assert (world.status(1), world.status(2)) == ("acknowledged", "resolved")
    assert world.feedback("case-2", satisfied=True)
    world.settle()
    assert (world.status(1), world.status(2)) == ("acknowledged", "closed")
    invariants.all_hold(world)


def test_a_follower_that_is_reopened_follows_nobody_until_it_is_merged_again() -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(1, "resolve")
    assert world.reopen("case-2")
    assert world.reopen("case-1")
    world.settle()
    assert world.follows(2) is None
    # The one that it followed does not name it any more.
    assert world.followers(1) == []
    world.one(1, 2)
    assert world.follows(2) == "case-1"
    assert world.followers(1) == ["case-2"]
    world.does(1, "resolve")
    assert (world.status(1), world.status(2)) == ("resolved", "resolved")
    invariants.all_hold(world)


def test_a_follower_may_be_resolved_by_hand() -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(2, "resolve")
    assert (world.status(1), world.status(2)) == ("reported", "resolved")
    world.does(1, "resolve")
    assert "followed" not in world.held(2)["state"]["resolution"]
    assert world.events("case.lead_resolved", 2) == []
    invariants.all_hold(world)


def test_a_follower_climbs_by_its_own_deadlines_and_still_follows() -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(1, "acknowledge")
    world.passes(2 * HOUR)
    level, _key = world.entry(2)
    assert (level, world.entry(1)[0]) == ("group", "household")
    assert world.follows(2) == "case-1"
    world.does(1, "resolve")
    assert world.status(2) == "resolved"
    assert world.held(2)["state"]["address"]["level"] == "group"
    invariants.all_hold(world)


def test_a_dead_desk_does_not_hold_a_follower() -> None:
    """It goes on by its own deadlines, and the next desk hears of the resolution as well."""
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(1, "escalate")
    world.dead = ("household",)
    world.does(1, "resolve")
    assert (world.status(1), world.status(2)) == ("resolved", "reported")
    world.passes(3 * HOUR)
    assert world.status(2) == "resolved"
    assert world.held(2)["state"]["address"]["level"] == "group"
    assert len(world.events("case.lead_resolved", 2)) == 2
    world.dead = ()
    world.settle()
    invariants.all_hold(world)


def test_the_kept_one_takes_the_most_urgent_urgency_and_its_time() -> None:
    world = Matter("ordinary", "urgent")
    assert (world.due(1)["counted"], world.due(2)["counted"]) == (["1d"], ["3h"])
    merged_at = world.clock.now()
    sooner = world.due(2)["due"]
    world.one(1, 2)
    state, facts = world.held(1)["state"], world.held(1)["facts"]
    assert (facts["urgency"], state["token"]["hop"]) == ("urgent", 1)
    # The rule of the urgency counts from now on; what came sooner goes before.
    assert state["clocks"]["level"]["started_at"] == merged_at
    assert (world.due(1)["due"], world.due(1)["counted"]) == (
        sooner,
        ["3h", "taken over from case-2"],
    )
    (hop,) = world.events("case.transferred", 1)
    assert hop.data["reason"] == "merged"
    assert hop.data["case"]["urgency"] == "urgent"
    # Less urgent, or as urgent and later: nothing changes.
    world.report("case-3")
    world.settle()
    world.one(1, 3)
    assert world.held(1)["state"]["token"]["hop"] == 1


def test_what_was_due_before_is_due_still_when_it_becomes_more_urgent() -> None:
    world = Matter("ordinary", "ordinary")
    world.clock.advance(22 * HOUR)
    world.report("case-3", "urgent")
    world.settle()
    world.does(1, "acknowledge")
    own = world.due(1)["due"]
    world.one(1, 3)
    # Two hours were left of its day, and the urgent rule would give three.
    assert (world.due(1)["due"], world.due(1)["counted"]) == (
        own,
        ["1d", "as before it was urgent"],
    )
    assert "acknowledge" not in [item["kind"] for item in world.held(1)["state"]["deadlines"]]


def test_an_earlier_deadline_is_taken_over_and_explained() -> None:
    world = Matter("ordinary")
    world.does(1, "escalate")
    world.does(1, "escalate")
    world.report("case-2")
    world.settle()
    assert world.entry(1)[0] == "village"
    sooner, at = world.due(2)["due"], world.clock.now()
    world.one(1, 2)
    state = world.held(1)["state"]
    taken = world.due(1)
    assert (taken["due"], taken["rule"]) == (sooner, world.due(2)["rule"])
    assert taken["counted"] == ["1d", "taken over from case-2"]
    assert [item["since"] for item in state["inherited"]] == [at] * 2
    rows = model.explain(world.held(1))
    armed = [row for row in rows if row["status"] == "armed" and row["kind"] == "resolve"]
    assert [row["due"] for row in armed] == [sooner]
    # It is one of this hop alone: the next level has its own time.
    world.does(1, "escalate")
    assert "inherited" not in world.held(1)["state"]
    assert world.due(1)["counted"] == ["7d"]


def test_what_was_taken_over_stands_while_the_case_is_suspended() -> None:
    world = Matter("ordinary")
    world.does(1, "escalate")
    world.does(1, "escalate")
    world.report("case-2")
    world.settle()
    world.one(1, 2)
    sooner, level = world.due(1)["due"], world.entry(1)[0]
    assert world.act(level, world.entry(1)[1], "suspend")
    world.settle()
    assert world.due(1)["due"] == plus(sooner, 2 * 86400)
    world.clock.advance(HOUR)
    world.does(1, "resume")
    assert world.due(1)["due"] == plus(sooner, HOUR)
    # More time that is granted afterwards counts from it.
    world.does(1, "extend")
    (asked,) = world.asked("township")
    assert world.answer("township", asked, granted=True)
    world.settle()
    assert world.due(1)["due"] == plus(sooner, HOUR + 86400)
    invariants.all_hold(world)


def test_of_several_followers_the_earliest_deadline_counts_also_after_a_pause() -> None:
    world = Matter("ordinary")
    world.does(1, "escalate")
    world.does(1, "escalate")
    for number in (2, 3):
        world.report(f"case-{number}")
        world.settle()
        world.clock.advance(600)
    # The second one comes first: the older of the two is earlier still.
    for number in (3, 2):
        world.one(1, number)
        assert world.due(1)["due"] == world.due(number)["due"]
    # Two hours of a pause: one that is reported then may be earlier than what stood.
    world.does(1, "suspend")
    world.clock.advance(2 * HOUR)
    world.does(1, "resume")
    own = plus(world.due(2)["due"], 2 * HOUR)
    assert world.due(1)["due"] == own
    world.report("case-4", "urgent")
    world.settle()
    theirs = world.due(4)["due"]
    world.one(1, 4)
    assert world.due(1)["due"] == min(own, theirs) == theirs
    assert world.due(1)["counted"][-1] == "taken over from case-4"


def test_more_time_that_was_granted_before_a_merge_does_not_move_what_it_brings() -> None:
    start = deadlines.Start(
        Instant("2026-01-05T00:00:00.000Z"), Instant("2026-01-05T00:00:00.000Z")
    )
    merged_at, sooner = plus(start.level, HOUR), plus(start.level, 10 * HOUR)
    left = deadlines.bequeathed(
        [
            {
                "kind": "resolve",
                "due": sooner,
                "rule": "r",
                "source": "s",
                "calendar": None,
                "counted": [],
            }
        ],
        merged_at,
        "taken over",
    )
    (profile,) = ATLAS.current

    def due(granted_at: Instant) -> str:
        granted = {"by": "1d", "granted_by": "t-1", "at": granted_at}
        found = deadlines.for_level(
            profile,
            {"urgency": "ordinary"},
            Address("group", "46900210421403"),
            start,
            ATLAS.holidays,
            extensions=[granted],
            inherited=left,
        )
        return next(str(item["due"]) for item in found if item["kind"] == "resolve")

    assert due(start.level) == sooner
    assert due(plus(merged_at, 1)) == plus(sooner, 86400)


def test_only_what_is_to_come_is_left_to_another_and_counts_without_pauses() -> None:
    since = Instant("2026-01-05T00:00:00.000Z")
    about = {"rule": "r", "source": "s", "calendar": None, "counted": []}
    found = [
        {"kind": kind, "due": plus(since, hours * HOUR), **about}
        for kind, hours in (("acknowledge", -1), ("resolve", 5), ("progress", 2), ("remind", 1))
    ]
    pause = Pause(plus(since, -HOUR), plus(since, 2 * HOUR), "waiting")
    (left,) = deadlines.bequeathed(found, since, "as before", [pause])
    assert (left["kind"], left["due"]) == ("resolve", plus(since, 3 * HOUR))


def test_a_case_that_was_supervised_stays_so() -> None:
    world = Matter("ordinary")
    assert world.supervise("case-1")
    world.report("case-2", "urgent")
    world.settle()
    world.one(1, 2)
    assert world.held(1)["facts"]["urgency"] == "urgent"
    assert world.held(1)["supervision"]["times"] == 1


@pytest.mark.parametrize("order", [((2, 3), (1, 2)), ((1, 2), (2, 3)), ((2, 3), (1, 3))])
def test_in_a_chain_all_follow_the_oldest(order: tuple[tuple[int, int], ...]) -> None:
    world = Matter("ordinary", "ordinary", "urgent")
    for pair in order:
        world.one(*pair)
    assert [world.follows(number) for number in (1, 2, 3)] == [None, "case-1", "case-1"]
    # What the youngest had is known to the oldest, by whatever way.
    assert world.held(1)["facts"]["urgency"] == "urgent"
    (_, key) = world.entry(1)
    entry = world.nodes["household"].store.documents()[key]
    assert entry["merged"]["followers"] == ["case-2", "case-3"]
    world.does(1, "resolve")
    assert [world.status(number) for number in (1, 2, 3)] == ["resolved"] * 3


def test_a_kept_case_that_is_withdrawn_frees_its_followers() -> None:
    world = Matter("ordinary", "ordinary", "ordinary")
    world.one(1, 2)
    world.one(1, 3)
    assert world.withdraw("case-1")
    world.settle()
    assert (world.follows(2), world.follows(3)) == (None, None)
    assert world.status(2) == "reported"
    freed = world.events("case.followed", 2)[-1]
    assert freed.data["following"]["why"] == "withdrawn"
    assert world.events("case.transferred", 2)[-1].data["reason"] == "freed"
    # And nobody takes them for its followers any more.
    assert world.events("case.merged", 1)[-1].data["merged"]["followers"] == []
    assert world.followers(1) == []
    world.one(2, 3)
    assert world.follows(3) == "case-2"


def test_a_follower_that_is_withdrawn_is_nothing_to_the_others() -> None:
    world = Matter("ordinary", "ordinary", "ordinary")
    world.one(1, 2)
    world.one(2, 3)
    assert world.withdraw("case-2")
    world.settle()
    assert world.follows(3) == "case-1"
    world.does(1, "resolve")
    assert [world.status(number) for number in (1, 2, 3)] == ["resolved", "withdrawn", "resolved"]


def test_what_becomes_of_the_kept_one_before_it_hears_makes_no_difference() -> None:
    """The merge is written, and the process dies; the older one is resolved before the sweep."""
    for ends in ("resolve", "withdraw"):
        world = Matter("ordinary", "ordinary")
        world.nodes["escalation"].cut = True
        assert world.merge(("case-1", "case-2"))
        if ends == "resolve":
            assert world.act(*world.entry(1), "resolve")
        else:
            assert world.withdraw("case-1")
        world.settle()
        assert world.follows(2) == ("case-1" if ends == "resolve" else None)
        assert world.status(2) == ("resolved" if ends == "resolve" else "reported")
        invariants.all_hold(world)


def test_two_at_once_merge_once() -> None:
    world = Matter("ordinary", "ordinary")
    assert world.merge(("case-2", "case-1"), Step(rival=True))
    world.settle()
    assert len(world.events("case.followed", 2)) == 1
    invariants.all_hold(world)


def test_what_has_ended_is_not_merged_and_it_is_said_which() -> None:
    world = Matter("ordinary", "ordinary", "ordinary")
    world.does(1, "resolve")
    documents = world.nodes["escalation"].store.documents()

    def read(cases: Any) -> dict[str, Document]:
        return {case: documents[case] for case in cases if case in documents}

    with pytest.raises(Refused) as caught:
        merging.pair(read, "case-2", "case-1", ATLAS)
    assert "case case-1 is resolved" in caught.value.detail
    assert caught.value.facts["case"] == "case-1"
    older, younger = merging.pair(read, "case-3", "case-2", ATLAS) or ({}, {})
    assert (older["case"], younger["case"]) == ("case-2", "case-3")


def test_what_follows_the_younger_one_counts_for_the_older_one_too() -> None:
    world = Matter("ordinary", "ordinary")
    documents = world.nodes["escalation"].store.documents()

    def merged(older: int, younger: int) -> Any:
        """What is said of two with so many followers."""
        crowds = {"case-1": older, "case-2": younger}
        with_crowds = {
            case: {**documents[case], "followers": {str(at): {"left": None} for at in range(many)}}
            for case, many in crowds.items()
        }
        return merging.pair(lambda cases: {case: with_crowds[case] for case in cases}, *pair, ATLAS)

    pair = ("case-2", "case-1")
    most = merging.MOST_FOLLOWERS
    assert merged(most - 1, 0) is not None
    for crowds in ((most, 0), (most - 10, 10)):
        with pytest.raises(Refused, match=f"{crowds[0]} cases follow case-1"):
            merged(*crowds)


def test_those_that_left_make_room_for_others() -> None:
    world = Matter("ordinary", "ordinary")
    documents = world.nodes["escalation"].store.documents()
    gone = {str(at): {"left": why} for at, why in enumerate(("left", "moved", "withdrawn") * 100)}
    there = {f"there-{at}": {"left": "resolved"} for at in range(merging.MOST_FOLLOWERS)}

    def pair(followers: dict[str, Any]) -> Any:
        crowded = {**documents, "case-1": {**documents["case-1"], "followers": followers}}
        return merging.pair(
            lambda cases: {case: crowded[case] for case in cases}, "case-1", "case-2", ATLAS
        )

    assert pair(gone) is not None
    with pytest.raises(Refused, match="200 are the most") as raised:
        pair({**gone, **there})
    address = documents["case-1"]["state"]["address"]
    assert raised.value.facts == {"case": "case-1", "held_by": address}


def test_a_merge_is_told_and_a_departure_is_no_merge() -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(2, "resolve")
    assert world.reopen("case-2")
    world.settle()
    joined, parted = world.events("case.merged", 1)
    assert (joined.data["joined"], joined.data["merged"]["followers"]) == (["case-2"], ["case-2"])
    assert (parted.data["joined"], parted.data["merged"]["followers"]) == ([], [])
    templates = [{"on": "case.merged", "tell": ["holder"], "by": ["log"], "text": "{title}"}]
    county = atlas(deadlines=_SOONER, templates=templates)
    rules = {**county.profiles, joined.data["case"]["profile"]: county.current[0]}
    county = type(county)(county.directory, rules, [county.current[0].id])

    def told(event: Event) -> int:
        document = notify.announce(None, event, (), county, world.clock.now()).document
        return len((document or {"deliveries": ()})["deliveries"])

    older = replace(joined, data={name: joined.data[name] for name in ("case", "state", "merged")})
    assert [told(event) for event in (joined, parted, older)] == [1, 0, 1]


def test_cases_under_rules_of_different_counties_are_not_merged() -> None:
    world = Matter("ordinary", "ordinary")
    other = atlas(profile="another")
    (mine,), (theirs,) = ATLAS.current, other.current
    both = {mine.id: mine, theirs.id: theirs}
    county = type(ATLAS)(ATLAS.directory, both, [mine.id])
    documents = world.nodes["escalation"].store.documents()
    facts = {**documents["case-2"]["facts"], "profile": theirs.id}
    documents["case-2"] = {**documents["case-2"], "facts": facts}
    with pytest.raises(Refused, match="different profiles, another and sample") as raised:
        merging.pair(
            lambda cases: {case: documents[case] for case in cases}, "case-1", "case-2", county
        )
    assert raised.value.facts["held_by"] == documents["case-1"]["state"]["address"]


def test_what_is_said_late_about_an_earlier_merge_changes_nothing() -> None:
    world = Matter("ordinary", "ordinary", "ordinary")
    world.one(2, 3)
    world.one(1, 2)
    (moved,) = world.events("case.led", 2)
    assert world.withdraw("case-1")
    world.settle()
    world.one(2, 3)
    assert world.follows(3) == "case-2"
    late = Event.read(moved.body())
    decision = model.work(late, ATLAS, world.clock.now())
    assert decision.key == "case-3"
    world.nodes["escalation"].replicas[0].fold.run([decision])
    world.settle()
    assert world.follows(3) == "case-2"
    invariants.all_hold(world)


@pytest.mark.parametrize("action", ["acknowledge", "note", "suspend"])
def test_whatever_its_holder_does_the_follower_is_resolved(action: str) -> None:
    world = Matter("ordinary", "ordinary")
    world.one(1, 2)
    world.does(2, action)
    world.does(1, "resolve")
    assert world.status(2) == "resolved"
    assert "suspension" not in world.held(2)["state"]
    invariants.all_hold(world)


def test_while_as_many_merges_wait_as_may_the_next_is_answered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    class Desk:
        def call(self, instance: str, *_question: Any) -> tuple[list[dict[str, Any]], bool]:
            asked.append(instance)
            return [{"status": "ended", "ended": "custody"}], False

    place = {"level": "village", "division": VILLAGE, "unit": None}
    document = {
        "case": "case-2",
        "facts": {"follows": "case-1"},
        "following": {"round": 1, "hop": 1},
        "seen": [{"round": 1, "hop": 0, "address": place}],
        "state": {"address": place, "token": {"stage": "held"}},
    }
    found = SimpleNamespace(read=lambda _keys: {"case-2": SimpleNamespace(document=document)})
    custodian: Any = SimpleNamespace(store=found)
    desk: Any = Desk()
    room = Semaphore(1)
    monkeypatch.setattr(duplicates, "_room", room)
    assert duplicates._heard(custodian, desk, "case-2")
    with room:
        assert not duplicates._heard(custodian, desk, "case-2")
    assert asked == ["dispatch-village"]
    document["facts"] = {}
    with pytest.raises(Refused, match="follows nobody"):
        duplicates._heard(custodian, desk, "case-2")
    document["facts"] = {"follows": "case-1"}
    assert duplicates._heard(custodian, desk, "case-2")
