"""Nothing is found after any history; whatever is then lost or restored is found and mended."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.bus.fold import Work
from services.dispatch import reconciliation as desk
from services.escalation import reconciliation
from services.escalation.reconciliation import ABSORBED, Finding, Page, Place
from services.grid.events import Event
from services.intake import reconciliation as register
from tests.simulator import invariants
from tests.simulator.county import LEVELS
from tests.simulator.history import HEADER, WIDTH, History
from tests.simulator.world import World

SEEDS = st.integers(0, 2**32)
LATER = 300.0


def everything(world: World) -> Page:
    """What all three say, and what each desk says of the entry that should hold a case."""
    custody = dict(world.nodes["escalation"].store.read(keys(world, "escalation")))
    known: dict[str, Any] = dict.fromkeys(custody)
    for told in register.cases_of(world.nodes["intake"].store, keys(world, "intake"), whole=True):
        known[told["case"]] = told
    dockets: dict[str, dict[Place, Any]] = {level: {} for level in LEVELS}
    for record in custody.values():
        at = reconciliation.held_at(record)
        if at is not None:
            dockets[at[0]][at[1]] = None
    for level in LEVELS:
        places = [
            (entry["case"], entry["round"], entry["hop"])
            for _key, entry in invariants.entries(world, level)
        ]
        for told in desk.entries_of(world.nodes[level].store, places, whole=True):
            place = Place(told["case"], told["round"], told["hop"])
            if told["status"] == "live" or place in dockets[level]:
                dockets[level][place] = told
    cases = {*known, *(place.case for entries in dockets.values() for place in entries)}
    leads = {
        lead: custody.get(lead) for lead in map(reconciliation.lead_of, custody.values()) if lead
    }
    calls: dict[str, dict[str, bool]] = {}
    for level, call in (
        at for record in custody.values() for at in reconciliation.called_at(record)
    ):
        calls.setdefault(level, {})[call] = bool(desk.calls_of(world.nodes[level].store, [call]))
    return Page({case: custody.get(case) for case in cases}, known, dockets, leads, calls)


def keys(world: World, name: str) -> list[str]:
    return list(world.nodes[name].store.documents())


def look(world: World) -> list[Finding]:
    county = world.atlas
    return reconciliation.compare(everything(world), county, world.clock.now(), LATER)


def told(page: Page, finding: Finding, world: World) -> Event | None:
    if finding.kind not in ABSORBED:
        return None
    known = (
        page.register[finding.case]
        if finding.place is None
        else page.dockets[finding.level][finding.place]
    )
    assert known is not None
    return reconciliation.as_event(finding.case, known["facts"], known["state"], world.clock.now())


def works(world: World) -> list[Work]:
    page, now, county = everything(world), world.clock.now(), world.atlas
    return [
        reconciliation.repair(finding, county, now, told(page, finding, world))
        for finding in reconciliation.one_source(look(world))
    ]


def history_of(random: Random, *, tame: bool = False) -> History:
    """A history with every desk alive; a tame one has clocks that agree."""
    header = bytearray(bytes(HEADER) if tame else random.randbytes(HEADER))
    header[0] = header[1] = 0
    return History(bytes(header))


def goes_on(history: History, random: Random, steps: int) -> World:
    """So many more steps of anything."""
    for _ in range(steps):
        history.step(random.randbytes(WIDTH))
    return history.world


def mend(world: World, mending: list[Work]) -> None:
    world.nodes["escalation"].replicas[0].fold.run(mending)


def damage(world: World, random: Random, past: dict[str, Any], names: list[str]) -> None:
    """Records of these are lost, or are as they once were; a deadline is no longer armed."""
    for _ in range(random.randint(1, 4)):
        name = random.choice(names)
        records = world.nodes[name].store._records
        if not records:
            continue
        key = random.choice(sorted(records))
        what = random.randrange(3)
        if what == 0:
            del records[key]
        elif what == 1 and key in past[name]:
            records[key] = copy.deepcopy(past[name][key])
            records[key]["unpublished"] = []
        elif name == "escalation":
            document = orjson.loads(records[key]["document"])
            records[key]["document"] = orjson.dumps({**document, "next_due": None})


def snapshot(world: World) -> dict[str, Any]:
    return {name: copy.deepcopy(node.store._records) for name, node in world.nodes.items()}


@settings(max_examples=500, deadline=None)
@given(seed=SEEDS, steps=st.integers(5, 100))
def test_nothing_is_found_once_the_bus_is_quiet(seed: int, steps: int) -> None:
    random = Random(seed)
    world = goes_on(history_of(random), random, steps)
    world.settle()
    assert look(world) == []


@settings(max_examples=500, deadline=None)
@example(seed=25520649, steps=46)
@given(seed=SEEDS, steps=st.integers(5, 80))
def test_what_was_lost_or_restored_is_mended(seed: int, steps: int) -> None:
    random = Random(seed)
    history = history_of(random, tame=True)
    history.world.report("case-1")
    past = snapshot(goes_on(history, random, steps // 2))
    world = goes_on(history, random, steps // 2 + 1)
    world.settle()
    names = [name for name in ("intake", "escalation", *LEVELS) if keys(world, name)]
    random.shuffle(names)
    names = names[: random.choice([1, 3])]
    damage(world, random, past, names)
    for _ in range(3):
        mending = works(world)
        mend(world, mending)
        published = len(world.published)
        # A repair twice changes nothing the second time: the same event at most.
        mend(world, mending)
        ids = {sent.event.id for sent in world.published[:published]}
        assert {sent.event.id for sent in world.published[published:]} <= ids
        world.settle()
        if not look(world):
            break
        world.clock.advance(1)
    assert look(world) == []
    invariants.armed(world)
    if len(names) == 1:
        # What all have lost is decided again; what one has lost is not.
        invariants.identities(world)


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, steps=st.integers(5, 80))
def test_repairs_in_the_middle_of_things_do_no_harm(seed: int, steps: int) -> None:
    """As if no second look were taken: what is in flight is taken for lost."""
    random = Random(seed)
    history = history_of(random, tame=True)
    world = history.world
    for _ in range(4):
        goes_on(history, random, steps // 4)
        world.repair()
        mend(world, works(world))
        world.clock.advance(1)
    world.settle()
    assert look(world) == []
    invariants.agreement(world)
    invariants.armed(world)
    invariants.entries_end(world)
    invariants.identities(world)


def test_a_merge_that_custody_forgot_is_said_anew_and_beyond_what_was_said() -> None:
    """The older case's custody is as it was before; register and desks know more than it."""
    history = history_of(Random(1), tame=True)
    world = history.world
    for number in (1, 2, 3):
        world.report(f"case-{number}")
        world.settle()
        world.clock.advance(60)
    before = snapshot(world)["escalation"]["case-1"]
    for follower in ("case-2", "case-3"):
        assert world.merge(("case-1", follower))
        world.settle()
    assert world.withdraw("case-3")
    world.settle()
    world.nodes["escalation"].store._records["case-1"] = {**before, "unpublished": []}
    for _ in range(3):
        mend(world, works(world))
        world.settle()
        world.clock.advance(1)
    assert look(world) == []
    known = world.nodes["escalation"].store.documents()["case-1"]
    assert [case for case, item in known["followers"].items() if item["left"] is None] == ["case-2"]
    # Another one that joins is known to the register at once.
    world.report("case-4")
    world.settle()
    assert world.merge(("case-1", "case-4"))
    world.settle()
    shown = world.nodes["intake"].store.documents()["case-1"]["merged"]["followers"]
    assert {"case-2", "case-4"} <= set(shown)
    invariants.identities(world)
