"""Emergency mode: which rules hold, and how cases in flight come under them and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.bus.errors import Defer, Refused
from services.bus.fold import Decision, Document, Fold, Record, Unpublished
from services.bus.memory import MemoryStore
from services.bus.shell import Shell
from services.dispatch import model as dispatch
from services.escalation import model, switching
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.directory import Directory
from services.grid.events import Event
from services.grid.profile import Profile, ProfileError, load_folder
from services.grid.tokens import Address, Token
from services.intake import directory
from services.intake import model as intake
from tests.simulator.county import DIVISIONS, GRID, RULES, atlas
from tests.simulator.world import World

ROOT = Path(__file__).parents[2]
TOWNSHIP, VILLAGE = "469002104", "469002104214"
START = FrozenClock().now()
HOUR = 3600.0


def part(**changes: Any) -> dict[str, Any]:
    """The county's rules with these changes to its emergency part."""
    return {"emergency": {**RULES["emergency"], **changes}}


def custody(county: Atlas, urgency: str = "ordinary", promised: float | None = None) -> Document:
    world = World(county)
    world.report("case-1", urgency, promised=promised)
    event = Event.read(world.published[0].body)
    document = model.decide(model.merge(None, event, START), county, START).document
    assert document is not None
    return document


def switched(
    document: Document, county: Atlas, after: float = HOUR, **record: Any
) -> tuple[Document, list[Event]]:
    decision = model.switch(Record("case-1", 1, document, **record), county, plus(START, after))
    assert decision.document is not None
    return decision.document, list(decision.events)


def level(document: Document) -> str:
    return str(document["state"]["address"]["level"])


def due(document: Document, kind: str) -> Instant:
    return Instant(
        next(item["due"] for item in document["state"]["deadlines"] if item["kind"] == kind)
    )


def test_a_case_in_flight_stays_and_has_the_time_of_the_emergency_from_the_switch_on() -> None:
    county = atlas()
    document, (hop, released) = switched(custody(county), county.switched(TOWNSHIP, on=True))
    assert (hop.type, hop.data["reason"]) == ("case.transferred", "emergency")
    assert released.type == "case.released"
    assert hop.data["case"]["emergency"] == document["facts"]["emergency"] == "469002104.1"
    assert level(document) == "household"
    assert Token.of(document["state"]["token"]).hop == 1
    assert document["state"]["clocks"]["level"] == {"started_at": plus(START, HOUR)}
    assert document["state"]["clocks"]["case"] == {"started_at": START}
    assert due(document, "resolve") == plus(START, 4 * HOUR)
    assert document["next_due"] == plus(START, 2 * HOUR)


def test_from_one_emergency_into_another_nobody_gets_more_time() -> None:
    county = atlas().switched(TOWNSHIP, on=True)
    document = custody(county)
    document, (hop, _) = switched(document, county.switched(VILLAGE, on=True), 2 * HOUR)
    assert hop.data["case"]["emergency"] == "469002104214.1"
    assert due(document, "resolve") == plus(START, 3 * HOUR)
    again = county.switched(TOWNSHIP, on=False).switched(TOWNSHIP, on=True)
    document, _ = switched(custody(county), again, 2 * HOUR)
    assert (document["facts"]["emergency"], due(document, "resolve")) == (
        "469002104.2",
        plus(START, 3 * HOUR),
    )


def test_where_the_profile_says_so_the_clock_goes_on() -> None:
    county = atlas(**part(clock="goes_on"))
    document, _ = switched(custody(county), county.switched(TOWNSHIP, on=True))
    assert due(document, "resolve") == plus(START, 3 * HOUR)


def test_it_rises_to_where_a_new_report_would_enter_and_stays_there_afterwards() -> None:
    county = atlas()
    on = county.switched(TOWNSHIP, on=True)
    document, events = switched(custody(county, "urgent"), on)
    assert level(document) == "village"
    assert events[0].key.startswith("case.transferred.village.")
    assert [event.data["released"]["address"]["level"] for event in events[1:]] == ["household"]
    back, events = switched(document, on.switched(TOWNSHIP, on=False), 2 * HOUR)
    assert events[0].data["reason"] == "emergency_ended"
    assert level(back) == "village"
    assert "emergency" not in back["facts"]
    assert due(back, "resolve") == plus(START, 2 * HOUR + 3 * 86400)


def test_it_never_goes_down() -> None:
    county = atlas()
    document = custody(county)
    now = START
    for hours in (2, 2, 4):
        now = plus(now, hours * HOUR)
        fired = model.fire(Record("case-1", 1, document), county, now, now).document
        assert fired is not None
        document = fired
    assert level(document) == "township"
    document, _ = switched(document, county.switched(TOWNSHIP, on=True), 9 * HOUR)
    assert level(document) == "township"


def test_a_level_that_only_the_emergency_knows_gives_it_to_the_top_of_the_ladder() -> None:
    steps = [{"level": name, "title": name} for name in ("township", "county")]
    line = {"level": "county", "acknowledge": "1h", "resolve": "2h", "source": "assumption"}
    county = atlas(
        **part(
            ladders={"war": steps},
            routing=[{"ladder": "war", "enter": "county", "source": "assumption"}],
            deadlines=[line],
        )
    )
    assert county.current[0].levels[-1] == "county"
    on = county.switched(TOWNSHIP, on=True)
    document, _ = switched(custody(county), on)
    assert (document["facts"]["ladder"], level(document)) == ("war", "county")
    assert county.current[0].in_emergency is not None
    document, _ = switched(document, on.switched(TOWNSHIP, on=False), 2 * HOUR)
    assert document["facts"]["ladder"] == "default"
    # Not down to where it was reported: the county has no desk on this ladder, its township has.
    assert document["state"]["address"] == Address("township", TOWNSHIP).as_dict()


def short(*levels: str) -> dict[str, Any]:
    """Emergency rules with a ladder of their own, on which every case enters."""
    steps = [{"level": level, "title": level} for level in levels]
    return part(
        ladders={"war": steps},
        routing=[{"ladder": "war", "source": "assumption"}],
        deadlines=[
            {"level": level, "acknowledge": "1h", "resolve": "2h", "source": "assumption"}
            for level in levels
        ],
    )


def climbed(document: Document, county: Atlas, *hours: int) -> Document:
    now = START
    for passed in hours:
        now = plus(now, passed * HOUR)
        document = done(model.fire(Record("case-1", 1, document), county, now, now))
    return document


def test_it_never_goes_down_onto_a_shorter_ladder() -> None:
    county = atlas(**short("household", "village", "county"))
    document = climbed(custody(county), county, 2, 2, 4)
    assert level(document) == "township"
    document, _ = switched(document, county.switched(TOWNSHIP, on=True), 9 * HOUR)
    assert (document["facts"]["ladder"], level(document)) == ("war", "county")
    document = climbed(custody(county), county, 2)
    assert level(document) == "group"
    document, _ = switched(document, county.switched(TOWNSHIP, on=True), 3 * HOUR)
    assert level(document) == "village"


def test_at_the_end_it_goes_to_the_next_level_that_there_is_and_not_to_the_top() -> None:
    county = atlas(**short("household", "brigade", "village", "township"))
    on = county.switched(TOWNSHIP, on=True)
    document = custody(on)
    state = {**document["state"], "address": {**document["state"]["address"], "level": "brigade"}}
    document, _ = switched({**document, "state": state}, on.switched(TOWNSHIP, on=False))
    assert (document["facts"]["ladder"], level(document)) == ("default", "village")


def test_a_case_whose_place_is_not_in_the_directory_is_left_as_it_is() -> None:
    county = atlas().switched(TOWNSHIP, on=True)
    document = custody(county)
    for missing in (TOWNSHIP, VILLAGE):
        fewer = [place for place in DIVISIONS if place.code != missing]
        part_of = Atlas(
            Directory(divisions=fewer),
            county.profiles,
            [*county.profiles],
            emergencies=county.emergencies.values(),
        )
        assert not model.switches(document["facts"], part_of)
        assert switched(document, part_of.switched(TOWNSHIP, on=False)) == (document, [])
        event = Event.read(reported(county).body())
        decision = model.work(event, part_of, START).change(Record("case-1"))
        assert done(decision)["facts"]["emergency"] == "469002104.1"


def reported(county: Atlas) -> Event:
    world = World(county)
    world.report("case-1")
    return world.published[0].event


def test_a_desk_with_nobody_on_duty_looks_once_more() -> None:
    county = atlas(unstaffed="hold")
    document = custody(county)
    nobody = {"officer": None, "why": "nobody on duty", "at": START}
    document = {**document, "state": {**document["state"], "assigned": nobody}}
    # Where nobody takes over the desk: the village's is not commanded.
    county = atlas(**{**part(command={}), "unstaffed": "hold"})
    document["facts"] = {**document["facts"], "profile": county.current[0].id}
    document, _ = switched(document, county.switched(TOWNSHIP, on=True))
    assert document["state"]["assigned"] is None


@pytest.mark.parametrize("enter", ["resolver", "above", "first", "village"])
def test_a_case_of_an_emergency_that_is_over_is_reopened_under_the_ordinary_rules(
    enter: str,
) -> None:
    rules = {**short("county"), "reopening": {"enter": enter, "source": "assumption"}}
    county = atlas(**rules)
    world = World(county.switched(TOWNSHIP, on=True))
    world.report("case-1")
    (record,) = world.nodes["intake"].store.documents().values()
    assert record["state"]["address"]["level"] == "county"
    off = world.atlas.switched(TOWNSHIP, on=False)
    decision = intake.reopen(settled(record), "op", "又坏了", atlas=off, now=plus(START, HOUR))
    facts, state = done(decision)["facts"], done(decision)["state"]
    assert (facts["ladder"], facts.get("emergency")) == ("default", None)
    wanted = {"first": "household", "village": "village"}.get(enter, "township")
    assert state["address"]["level"] == wanted
    assert off.contradiction({"case": facts, "state": state}) is None


def test_a_case_that_is_reopened_in_an_emergency_rises_as_one_in_flight() -> None:
    county = atlas()
    world = World(county)
    world.report("case-1", "urgent")
    (record,) = world.nodes["intake"].store.documents().values()
    on = county.switched(TOWNSHIP, on=True)
    decision = intake.reopen(settled(record), "op", "又坏了", atlas=on, now=plus(START, HOUR))
    assert level(done(decision)) == "village"


def settled(record: Document) -> Document:
    token = {**record["state"]["token"], "stage": "resolved", "seq": 1}
    said = {"outcome": "settled", "note": "", "by": "x", "at": START}
    return {**record, "state": {**record["state"], "token": token, "resolution": said}}


@pytest.mark.parametrize(
    ("in_flight", "follows"),
    [
        ("all", True),
        ("none", False),
        ({"urgency": "urgent"}, False),
        ({"urgency": "ordinary"}, True),
    ],
)
def test_the_profile_says_which_cases_in_flight_follow(in_flight: Any, follows: bool) -> None:
    county = atlas(**part(in_flight=in_flight))
    document, events = switched(custody(county), county.switched(TOWNSHIP, on=True))
    assert (document["facts"].get("emergency") is not None) == follows
    assert bool(events) == follows


def test_a_case_keeps_the_rules_it_was_reported_under_where_none_follow() -> None:
    county = atlas(**part(in_flight="none")).switched(TOWNSHIP, on=True)
    document = custody(county)
    assert document["facts"]["emergency"] == "469002104.1"
    document, events = switched(document, county.switched(TOWNSHIP, on=False))
    assert (document["facts"]["emergency"], events) == ("469002104.1", [])


def test_the_nearest_emergency_counts_and_a_switch_twice_changes_nothing() -> None:
    county = atlas().switched(TOWNSHIP, on=True).switched(VILLAGE, on=True)
    document, _ = switched(custody(atlas()), county)
    assert document["facts"]["emergency"] == "469002104214.1"
    again, events = switched(document, county, 2 * HOUR)
    assert (again, events) == (document, [])
    # The village's ends, the township's goes on.
    document, (hop, _) = switched(document, county.switched(VILLAGE, on=False), 2 * HOUR)
    assert hop.data["reason"] == "emergency"
    assert document["facts"]["emergency"] == "469002104.1"


def test_what_is_suspended_waits_on() -> None:
    county = atlas()
    document = custody(county)
    entry = dispatch.merge(None, case_event(document))
    entry = done(dispatch.decide(entry, county, START))
    act = dispatch.suspend(entry, "h-1", "waiting", "", atlas=county, now=plus(START, 60))
    document = model.merge(document, act.events[0], plus(START, 61))
    document, _ = switched(document, county.switched(TOWNSHIP, on=True))
    (pause,) = document["state"]["clocks"]["level"]["pauses"]
    until = plus(START, 60 + 2 * 86400)
    assert (pause["starts"], pause["ends"]) == (plus(START, HOUR), until)
    assert document["state"]["suspension"]["until"] == until
    assert due(document, "resolve") == plus(until, 3 * HOUR)


def test_a_promise_that_was_not_kept_is_supervised_on_under_the_rules_of_an_emergency() -> None:
    county = atlas()
    document = climbed(custody(county, promised=6 * HOUR), county, 2, 2, 4, 2)
    assert (level(document), document["supervision"]["deadline"]["rule"]) == (
        "township",
        "respond_by",
    )
    after, _ = switched(document, county.switched(TOWNSHIP, on=True), 11 * HOUR)
    # The level's time begins anew, the case's own does not.
    assert "resolve" not in {item["kind"] for item in after["state"]["deadlines"]}
    assert after["supervision"] == document["supervision"]
    assert after["next_due"] is not None


def case_event(document: Document) -> Event:
    """``case.reported`` of a case that the custodian has."""
    world = World(atlas())
    world.report("case-1")
    event = Event.read(world.published[0].body)
    assert event.data["state"] == document["state"]
    return event


def done(decision: Decision) -> Document:
    assert decision.document is not None
    return decision.document


def test_another_person_commands_the_desk() -> None:
    county = atlas()
    on = county.switched(TOWNSHIP, on=True)
    before = custody(county)
    entry = done(dispatch.decide(dispatch.merge(None, case_event(before)), county, START))
    assert entry["state"]["assigned"]["officer"] == "h-1"
    _, events = switched(before, on)
    entry = done(dispatch.decide(dispatch.merge(None, events[0]), on, plus(START, HOUR)))
    assert (entry["state"]["assigned"]["officer"], entry["state"]["assigned"]["why"]) == (
        "t-1",
        "command",
    )


def test_what_was_reported_by_an_intake_that_had_not_heard_comes_under_it_on_arrival() -> None:
    world = World(atlas())
    world.report("case-1")
    on = atlas().switched(TOWNSHIP, on=True)
    decision = model.work(Event.read(world.published[0].body), on, START).change(Record("case-1"))
    assert done(decision)["facts"]["emergency"] == "469002104.1"
    assert [event.type for event in decision.events] == ["case.transferred", "case.released"]


def test_an_emergency_that_has_not_arrived_is_waited_for() -> None:
    county = atlas()
    facts = custody(county.switched(TOWNSHIP, on=True))["facts"]
    assert not county.knows(facts)
    with pytest.raises(UnknownProfile, match=r"469002104\.1: it has not arrived yet"):
        county.rules_for(facts)


def test_it_waits_until_others_know_who_holds_the_case() -> None:
    county = atlas()
    document = custody(county)
    unpublished = [Unpublished(case_event(document), 0.0)]
    with pytest.raises(Refused, match="just moved"):
        switched(document, county.switched(TOWNSHIP, on=True), unpublished=unpublished)


def test_a_migration_keeps_a_case_in_emergency_mode() -> None:
    county = atlas()
    new = Profile.parse({**county.current[0].rules, "grace": "5m"})
    on = Atlas(
        county.directory,
        {**county.profiles, new.id: new},
        [new.id],
        emergencies=county.switched(TOWNSHIP, on=True).emergencies.values(),
    )
    document, _ = switched(custody(county), on)
    migrated = model.migrate(Record("case-1", 1, document), new.id, on, plus(START, 2 * HOUR))
    facts = done(migrated)["facts"]
    assert (facts["profile"], facts["emergency"]) == (new.id, "469002104.1")


def test_a_version_that_knows_an_emergency_mode_brings_a_case_into_it() -> None:
    """As if it had been switched on only then: up to where a new report would enter."""
    new = atlas().current[0]
    rules = {name: rule for name, rule in new.rules.items() if name != "emergency"}
    old = Profile.parse(rules)
    on = Atlas(
        atlas().directory,
        {old.id: old, new.id: new},
        [new.id],
        emergencies=atlas().switched(TOWNSHIP, on=True).emergencies.values(),
    )
    before = Atlas(atlas().directory, {old.id: old}, [old.id])
    document = custody(before, "urgent")
    decision = model.migrate(Record("case-1", 1, document), new.id, on, plus(START, HOUR))
    migrated = done(decision)
    assert migrated["facts"]["emergency"] == "469002104.1"
    assert level(migrated) == "village"
    assert decision.answer["after"]["address"]["level"] == "village"
    assert due(migrated, "resolve") == plus(START, 7 * HOUR)
    back = model.migrate(Record("case-1", 1, migrated), old.id, on, plus(START, 2 * HOUR))
    assert "emergency" not in done(back)["facts"]
    assert level(done(back)) == "village"


class Custodian:
    """As much of a custodian's shell as the pass asks for; ``known`` is what it has heard."""

    def __init__(self, known: Atlas) -> None:
        self.known = known
        self.clock = FrozenClock()
        self.memory = MemoryStore()
        self.fold = Fold(self.memory, self, self.clock)
        self.shards: tuple[int, ...] = tuple(range(model.SHARDS))
        self.county = self.custodians = self.store = self
        self.by = "x"
        self.behind = False
        self.pages = 0
        self.after_page: Callable[[], None] = lambda: None

    @property
    def now(self) -> Instant:
        return self.clock.now()

    def atlas(self) -> Atlas:
        return self.known

    def publish(self, events: Any) -> set[str]:
        return {event.id for event in events}

    def reached(self, _by: str) -> Instant:
        return self.now

    def read(self, at: Any) -> Any:
        """Markers, and records."""
        if isinstance(at, str):
            return None if self.behind else at
        return self.memory.read(at)

    def ring(self) -> None:
        """Nobody sleeps."""

    def modes(self, after: str, limit: int, _shards: Any) -> list[tuple[str, dict[str, Any]]]:
        self.pages += 1
        found = sorted(self.memory.documents().items())
        page = [(case, item["facts"]) for case, item in found if case > after][:limit]
        self.after_page()
        return page

    def takes(self, case: str, known: Atlas | None = None) -> None:
        """Custody arrives at a process that knows this."""
        world = World(atlas())
        world.report(case)
        event = Event.read(world.published[0].body)
        self.fold.run([model.work(event, known or self.known, self.now)])

    def emergencies(self) -> list[str | None]:
        found = sorted(self.memory.documents().items())
        return [item["facts"].get("emergency") for _case, item in found]


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Real time, in its only item."""
    now = [100.0]
    monkeypatch.setattr(switching, "monotonic", lambda: now[0])
    return now


def test_what_was_let_in_behind_the_pass_is_brought_over_too(seconds: list[float]) -> None:
    """Another replica reads the queue, and has not heard of the switch yet."""
    before = atlas()
    custodian: Any = Custodian(before)
    custodian.takes("case-1")
    passes = switching.Switching()
    passes.work(custodian, custodian)
    custodian.known = before.switched(TOWNSHIP, on=True)
    passes.work(custodian, custodian)
    assert custodian.emergencies() == ["469002104.1"]
    custodian.takes("case-2", before)
    seconds[0] += switching.LATE_SECONDS / 2
    passes.work(custodian, custodian)
    assert custodian.emergencies() == ["469002104.1", None]
    seconds[0] += switching.LATE_SECONDS
    passes.work(custodian, custodian)
    assert custodian.emergencies() == ["469002104.1"] * 2
    pages = custodian.pages
    seconds[0] += 60
    passes.work(custodian, custodian)
    assert custodian.pages == pages


def test_what_is_switched_back_takes_no_more_cases_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switching, "PAGE", 2)
    on = atlas().switched(TOWNSHIP, on=True)
    custodian: Any = Custodian(atlas())
    for number in range(6):
        custodian.takes(f"case-{number}")
    custodian.known = on

    def back() -> None:
        custodian.known = on.switched(TOWNSHIP, on=False)

    custodian.after_page = back
    passes = switching.Switching()
    passes.work(custodian, custodian)
    assert custodian.emergencies() == [None] * 6
    found = sorted(custodian.memory.documents().items())
    assert [item["state"]["token"]["hop"] for _case, item in found] == [2, 2, 0, 0, 0, 0]


def test_the_pass_waits_while_the_queue_is_not_read_and_goes_on(seconds: list[float]) -> None:
    custodian: Any = Custodian(atlas())
    custodian.takes("case-1")
    custodian.known, custodian.behind = atlas().switched(TOWNSHIP, on=True), True
    passes = switching.Switching()
    passes.work(custodian, custodian)
    assert custodian.emergencies() == [None]
    custodian.behind = False
    seconds[0] += 1
    passes.work(custodian, custodian)
    assert custodian.emergencies() == ["469002104.1"]


def test_a_pass_that_waits_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switching, "PAGE", 2)
    custodian: Any = Custodian(atlas())
    for number in range(6):
        custodian.takes(f"case-{number}")
    custodian.known = atlas().switched(TOWNSHIP, on=True)
    custodian.after_page = lambda: setattr(custodian, "behind", True)
    passes = switching.Switching()
    for pages in (1, 2, 3, 4):
        custodian.behind = False
        passes.work(custodian, custodian)
        assert custodian.pages == pages
    assert custodian.emergencies() == ["469002104.1"] * 6


def test_what_can_not_be_brought_over_now_is_tried_again(seconds: list[float]) -> None:
    custodian: Any = Custodian(atlas())
    custodian.publish = lambda _events: set()
    custodian.takes("case-1")
    custodian.takes("case-2", atlas().switched(TOWNSHIP, on=True))
    custodian.known = atlas().switched(TOWNSHIP, on=True).switched(TOWNSHIP, on=False)
    passes = switching.Switching()
    passes.work(custodian, custodian)
    # Others do not know yet who holds it.
    assert custodian.emergencies() == [None, "469002104.1"]
    custodian.publish = lambda events: {event.id for event in events}
    custodian.fold.sweep(-1e9)
    seconds[0] += switching.AGAIN_SECONDS
    passes.work(custodian, custodian)
    assert custodian.emergencies() == [None, None]


def test_a_village_that_comes_into_a_switched_township_follows(seconds: list[float]) -> None:
    on = atlas().switched(TOWNSHIP, on=True)
    elsewhere = [
        replace(place, parent="469002") if place.code == VILLAGE else place for place in DIVISIONS
    ]
    apart = Atlas(
        Directory(divisions=elsewhere),
        on.profiles,
        [*on.profiles],
        emergencies=on.emergencies.values(),
    )
    custodian: Any = Custodian(apart)
    custodian.takes("case-1")
    passes = switching.Switching()
    for _ in range(3):
        passes.work(custodian, custodian)
        seconds[0] += switching.LATE_SECONDS
    assert custodian.emergencies() == [None]
    custodian.known = on
    passes.work(custodian, custodian)
    assert custodian.emergencies() == ["469002104.1"]


class Behind:
    """A process's copy of the directory; it asks the database only when it must."""

    def __init__(self, knows: Atlas, database: Atlas) -> None:
        self.knows, self.database = knows, database

    def atlas(self) -> Atlas:
        return self.knows

    def rules_for(self, facts: dict[str, Any]) -> Profile:
        if not self.knows.knows(facts):
            self.knows = self.database
        return self.knows.rules_for(facts)


@pytest.mark.parametrize("heard", [True, False])
def test_a_document_under_an_emergency_that_only_another_replica_has_heard_of(heard: bool) -> None:
    """What the desk did before the hop comes after it, to a process that is some seconds behind."""
    before, on = atlas(), atlas().switched(TOWNSHIP, on=True)
    document = custody(before)
    entry = done(dispatch.decide(dispatch.merge(None, case_event(document)), before, START))
    act = dispatch.acknowledge(entry, "h-1", "", atlas=before, now=plus(START, 60))
    document, _ = switched(document, on)
    shell: Any = object.__new__(Shell)
    shell.county = Behind(before, on if heard else before)
    event = Event.read(act.events[0].body())
    (work,) = shell.works([event], lambda event, atlas: model.work(event, atlas, START))
    if not heard:
        with pytest.raises(Defer, match="has not arrived yet"):
            work.change(Record("case-1", 1, document))
        return
    found = done(work.change(Record("case-1", 1, document)))["state"]
    # The case stayed with who did it: it counts.
    assert (found["acknowledged"]["by"], found["token"]["hop"]) == ("h-1", 2)


def test_a_switch_is_an_entry_of_the_directory_and_again_changes_nothing() -> None:
    told = {"by": "op", "reason": "台风", "directory": atlas().directory, "now": START}
    first = directory.switch(None, TOWNSHIP, on=True, changed=1.0, **told)
    (event,) = first.events
    assert event.key == "directory.emergency.township.46.90.02.104"
    assert event.data["emergency"]["number"] == 1
    again = directory.switch(first.document, TOWNSHIP, on=True, changed=2.0, **told)
    assert (again.document, [*again.events]) == (first.document, [])
    off = directory.switch(first.document, TOWNSHIP, on=False, changed=3.0, **told)
    assert (off.answer["on"], off.answer["number"]) == (False, 1)
    third = directory.switch(off.document, TOWNSHIP, on=True, changed=4.0, **told)
    assert third.answer["number"] == 2
    assert third.document is not None and third.document["version"] == 3
    with pytest.raises(Refused, match="not in emergency mode"):
        directory.switch(None, TOWNSHIP, on=False, changed=1.0, **told)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"in_flight": "some"}, "emergency.in_flight", "write one of all, none"),
        ({"in_flight": {"urgency": "huge"}}, "emergency.in_flight.urgency", "'huge' is not known"),
        ({"clock": "stops"}, "emergency.clock", "write one of goes_on, starts_again"),
        (
            {"command": {"village": "household"}},
            "emergency.command.village",
            "is not above village",
        ),
        ({"command": {"town": "township"}}, "emergency.command.town", "'town' is not known"),
        ({"officers": []}, "emergency.officers", "is not known"),
        (
            {"routing": [{"enter": "moon"}]},
            "emergency.routing[0].enter",
            "write one of household, group, village, township",
        ),
        (
            {"ladders": {"war": [{"level": "county", "title": "县"}]}},
            "emergency.ladders.war[0].level",
            "county has no deadline",
        ),
        (
            {"routing": [{"source": "x"}, {"enter": "village", "source": "y"}]},
            "emergency.routing[1]",
            "never applies",
        ),
        (
            {"routing": [], "deadlines": [], "command": {}},
            "emergency",
            "changes nothing: add ladders, routing, deadlines or command",
        ),
    ],
)
def test_a_mistake_is_named_with_its_field(changes: Any, field: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        Profile.parse({**RULES, **part(**changes)})
    found = {problem.field: problem.text for problem in caught.value.problems}
    assert field in found, found
    assert said in found[field]


def test_in_qionghai_nothing_enters_lower_in_an_emergency_than_on_other_days() -> None:
    loaded = load_folder(ROOT / "profiles/qionghai")
    ordinary, other = loaded.profile, loaded.profile.in_emergency
    assert other is not None
    for category in ordinary.categories:
        for urgency in ordinary.urgencies:
            facts = {"category": category, "urgency": urgency, "source": "hotline"}
            levels = [
                rules.enter(facts, GRID, loaded.directory).address.level
                for rules in (ordinary, other)
            ]
            assert levels == sorted(levels, key=ordinary.levels.index), facts
