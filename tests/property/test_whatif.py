"""Under the profile under which they ran, recorded cases go as they went.

The record comes from the services' own functions: what they publish is exported as the
command line does, read again, and replayed.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.grid import json
from services.grid.clock import Instant, plus
from services.grid.profile import Loaded
from services.grid.recorded import RecordedCase, of_timeline, read_case
from services.grid.tally import Comparison
from services.grid.whatif import ELSEWHERE, Course, recorded_course, replay
from services.intake.api import shown
from tests.simulator.county import DIVISIONS, DUTIES, LEVELS, OFFICERS, RULES, UNITS, atlas
from tests.simulator.world import World

KINDS = ("acknowledge", "resolve")
# What was done after a case was accepted is not recorded: that an acknowledgement lapses, neither.
LINES = [
    {name: value for name, value in line.items() if name != "progress"}
    for line in RULES["deadlines"]
]
ATLASES = {how: atlas(unstaffed=how, deadlines=LINES) for how in ("deputy", "skip", "hold")}


def lived(random: Random, how: str) -> World:
    """Cases without delays of ours: everything is delivered, and fires, before anybody acts."""
    world = World(ATLASES[how])
    for step in range(random.randint(1, 150)):
        # What is reported, and so due, is so in whole seconds, and what is done half a second
        # later: never in the instant in which something is due, for a record can't tell which was
        # first.
        seconds = random.choice([7, 601, 1799, 7200]) - (0.5 if step else 0)
        wait(world, plus(world.clock.now(), seconds))
        if step == 0 or random.random() < 0.02:
            category = random.choice(["facility", "order"])
            world.report(f"case-{step}", random.choice(["ordinary", "urgent"]), category=category)
            world.settle()
        world.clock.advance(0.5)
        level = random.choice(LEVELS)
        entries = world.entries(level)
        if entries and random.random() < 0.3:
            world.act(level, random.choice(entries), random.choice(["acknowledge", "resolve"]))
            world.settle()
    return world


def wait(world: World, until: Instant) -> None:
    """Time goes on, and each deadline is acted upon at the moment when it is due."""
    world.settle()
    custody = world.nodes["escalation"].store
    while True:
        dues = [document["next_due"] for document in custody.documents().values()]
        due = min(filter(None, dues), default=None)
        if due is None or due > until:
            break
        world.clock.set(max(due, world.clock.now()))
        world.second()
        world.settle()
    world.clock.set(until)


def records(world: World) -> list[RecordedCase]:
    """What the command line would export of this world, read again."""
    found = []
    for name, document in world.nodes["intake"].store.documents().items():
        events = [
            {"type": event.type, "time": event.time, "data": event.data}
            for event, _at, _body in world.published
            if event.subject == name and event.type.startswith("case.")
        ]
        lines = of_timeline(shown(document, world.atlas), events, world.clock.now())
        found += [read_case(json.dumps(line)) for line in lines]
    return found


def loaded(how: str) -> Loaded:
    (profile,) = ATLASES[how].profiles.values()
    return Loaded(profile, DIVISIONS, UNITS, OFFICERS, duties=DUTIES)


def essence(course: Course) -> Any:
    """Without the text of a rule, which a record doesn't have."""
    stays = [
        (replace(stay, fired=None), stay.fired and stay.fired._replace(text=""))
        for stay in course.stays
    ]
    return stays, course.resolved_by, course.resolved, course.assumed


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), how=st.sampled_from(sorted(ATLASES)))
def test_under_their_own_profile_cases_go_as_they_went(seed: int, how: str) -> None:
    for case in records(lived(Random(seed), how)):
        went = recorded_course(case)
        assert went.stays[-1].ended != ELSEWHERE
        assert essence(replay(loaded(how), case)) == essence(went), case


def twice(how: str) -> Loaded:
    """The same county with twice the time for everything."""
    longer = [
        {**line, **{kind: f"{2 * int(line[kind][:-1])}{line[kind][-1]}" for kind in KINDS}}
        for line in LINES
    ]
    (profile,) = atlas(unstaffed=how, deadlines=longer).profiles.values()
    return Loaded(profile, DIVISIONS, UNITS, OFFICERS, duties=DUTIES)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), how=st.sampled_from(sorted(ATLASES)), worst=st.booleans())
def test_with_more_time_no_other_cases_climb(seed: int, how: str, worst: bool) -> None:
    comparison = Comparison(twice(how), worst_case=worst)
    for case in records(lived(Random(seed), how)):
        course = replay(twice(how), case, worst_case=worst)
        assert recorded_course(case).climbed or not course.climbed
        for before, after in pairwise(course.stays):
            assert before.arrived <= before.until == after.arrived
        comparison.add(case)
    told = comparison.shown()
    assert told["climbs_now"] == 0
    for side in (told["recorded"], told["replayed"]):
        assert side["told"] + side["assumed"] + side["unknown"] == side["cases"]
        for level in side["levels"].values():
            ends = ("resolved", "climbed", "open", "withdrawn", "elsewhere", "unknown")
            assert level["came"] == sum(level[name] for name in ends)
