"""What a holder did in the instant of a hop that left the case with them is not lost."""

from __future__ import annotations

from typing import Any

import pytest

from services.escalation import catching_up
from services.grid.clock import plus
from tests.simulator import invariants
from tests.simulator.county import with_successor
from tests.unit.test_merging import ATLAS, HOUR, Matter


def overtaken(*acts: str) -> Matter:
    """Two cases; what the holder of the younger one does, its merge overtakes at the custodian."""
    world = Matter("ordinary", "ordinary")
    for act in acts:
        assert world.act(*world.entry(2), act)
    assert world.held(2)["state"]["token"]["seq"] == 1, "the custodian knows of the assignment only"
    world.one(1, 2)
    return world


def state(world: Matter) -> dict[str, Any]:
    found: dict[str, Any] = world.held(2)["state"]
    return found


def test_who_accepted_a_case_has_accepted_it() -> None:
    world = overtaken("acknowledge")
    assert state(world)["acknowledged"]["by"] == "officer-household"
    assert "acknowledge" not in {item["kind"] for item in state(world)["deadlines"]}
    level, key = world.entry(2)
    shown = world.nodes[level].store.documents()[key]
    assert shown["state"] == state(world)
    assert world.follows(2) == "case-1"
    (said, again) = world.events("case.transferred", 2)
    assert (said.data["reason"], again.data["reason"]) == ("merged", "caught_up")


def test_a_unit_that_was_called_is_called() -> None:
    world = overtaken("whistle", "note")
    calls = [call["id"] for call in state(world)["joined"]]
    assert len(calls) == 2
    told = [event.data["call"]["id"] for event in world.events("case.called", 2)]
    assert sorted(told) == sorted(calls)


def test_a_unit_that_was_released_leaves() -> None:
    world = Matter("ordinary", "ordinary")
    world.does(2, "whistle")
    assert world.act(*world.entry(2), "release")
    world.one(1, 2)
    call = state(world)["joined"][0]
    assert call["released"]["by"] == "officer-household"
    assert len(world.events("case.call_ended", 2)) == 1


def test_a_case_that_waits_goes_on_waiting() -> None:
    world = overtaken("suspend")
    waits = state(world)["suspension"]
    assert world.due(2)["due"] > plus(waits["until"], 0)
    # Resumed in the instant of the next such hop, its deadlines come back.
    world.clock.advance(HOUR)
    assert world.act(*world.entry(2), "resume")
    world.atlas = with_successor(ATLAS)
    world.nodes["escalation"].hear()
    (version,) = world.atlas.profiles.keys() - ATLAS.profiles.keys()
    assert world.migrate("case-2", version)
    world.settle()
    invariants.all_hold(world)
    assert "suspension" not in state(world)


def test_more_time_that_was_granted_is_given() -> None:
    world = Matter("ordinary", "ordinary")
    before = world.due(2)["due"]
    world.does(2, "extend")
    (asked,) = world.asked("group")
    assert world.answer("group", asked, granted=True)
    world.one(1, 2)
    assert [item["id"] for item in state(world)["extensions"]] == [asked.partition(":")[2]]
    assert world.due(2)["due"] == plus(before, 24 * HOUR)


def test_who_resolved_it_held_it() -> None:
    world = overtaken("resolve")
    invariants.all_hold(world)
    assert (state(world)["token"]["stage"], state(world)["token"]["hop"]) == ("resolved", 0)
    assert world.held(2)["seen"][-1]["hop"] == 1
    assert not world.held(2)["late_custody"]
    assert not world.nodes["intake"].store.documents()["case-2"]["late_custody"]


def test_what_was_said_to_another_holder_is_beaten() -> None:
    world = Matter("ordinary", "ordinary")
    level, key = world.entry(2)
    assert world.act(level, key, "acknowledge")
    token = {**world.held(2)["state"]["token"], "hop": 1}
    moved = {**world.held(2), "state": {**world.held(2)["state"], "token": token}}
    moved["seen"] = [
        *moved["seen"],
        {**moved["seen"][0], "hop": 1, "address": {"level": "group"}},
    ]
    said = world.events("case.acknowledged", 2)[0]
    assert catching_up.overtaken(moved, said) is None


@pytest.mark.parametrize("restarted", [True, False])
def test_what_counted_from_a_time_that_counts_no_longer_is_left(*, restarted: bool) -> None:
    world = Matter("ordinary")
    known = world.held(1)["state"]
    began = known["clocks"]["level"]["started_at"]
    more = {"id": "x", "by": "1d", "granted_by": "lead", "at": began}
    late = {**known, "extensions": [more]}
    if restarted:
        clocks = {**known["clocks"], "level": {"started_at": plus(began, HOUR)}}
        known = {**known, "clocks": clocks}
    taken = catching_up.taken_over(known, late)
    assert ("extensions" in taken) is not restarted
    assert catching_up.taken_over(taken, late) == taken, "twice is once"


def test_an_order_of_acts_leaves_no_trace() -> None:
    world = overtaken("acknowledge", "note", "whistle", "suspend")
    invariants.all_hold(world)
    assert state(world)["acknowledged"] and state(world)["suspension"]


def test_an_act_that_a_later_one_of_the_hop_overtook_says_nothing_new() -> None:
    # It was resumed in the instant in which it was suspended, and the merge begins its clock anew
    # in that instant: then no trace of the pause is left that would end it once more.
    world = Matter("ordinary", "ordinary")
    for act in ("suspend", "resume"):
        assert world.act(*world.entry(2), act)
    suspended, resumed = world.events("case.suspended", 2)[0], world.events("case.resumed", 2)[0]
    seen = [
        {"round": 1, "hop": hop, "address": resumed.data["state"]["address"], "token": token}
        for hop, token in enumerate(
            (resumed.data["state"]["token"], {**resumed.data["state"]["token"], "hop": 1, "seq": 0})
        )
    ]
    document = {"seen": seen, "state": {**resumed.data["state"], "token": seen[1]["token"]}}
    assert catching_up.overtaken(document, resumed) == resumed.data["state"]
    assert catching_up.overtaken(document, suspended) is None
