"""Each rule that the design marks ✱ is needed: without it the same histories go wrong.

A rule is taken out of the real functions for the length of a test. The histories are those of
``history.py``; with all rules in place every one of them must hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from services.bus.memory import MemoryStore
from services.dispatch import model as dispatch
from services.escalation import merging, whistle
from services.escalation import model as escalation
from services.escalation.firing import Markers
from services.grid.events import making
from services.grid.tokens import Token
from services.intake import model as intake
from tests.simulator import invariants
from tests.simulator.county import LEVELS
from tests.simulator.history import ATLAS, Broken, of_seed, play
from tests.simulator.shrinking import shortest
from tests.simulator.world import World

HISTORIES = [of_seed(seed) for seed in range(800)]


def decides_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.1: a decision is made once and stored; a replay makes no new one."""
    decide = dispatch.decide

    def again(document: Any, *arguments: Any) -> Any:
        if document["state"] is not None and document["status"] == "live":
            document = {**document, "state": {**document["state"], "assigned": None}}
        return decide(document, *arguments)

    monkeypatch.setattr(dispatch, "decide", again)


def last_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.2: merging keeps the greatest token, not what came last."""
    merge = intake.merge

    def last(document: Any, event: Any) -> Any:
        return {**merge(document, event), "state": event.data["state"]}

    monkeypatch.setattr(intake, "merge", last)


def desks_write_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.2: each number has one writer; only the custodian writes ``hop``."""

    def act(self: Token, stage: Any = None) -> Token:
        return self._replace(hop=self.hop + 1, stage=self.stage if stage is None else stage)

    monkeypatch.setattr(Token, "act", act)


def releases_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.3: the custodian releases every token that is not current."""
    monkeypatch.setattr(escalation._Decider, "release", lambda _self: None)


def forgets_early_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.3: a desk remembers a release that overtakes the arrival."""
    released = dispatch._released

    def forgetful(document: Any, event: Any) -> Any:
        if document is None:
            return dispatch._blank(event, event.data["released"]["token"])
        return released(document, event)

    monkeypatch.setattr(dispatch, "_released", forgetful)


def keeps_no_unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.4: a step writes its documents together with the events that follow."""
    write = MemoryStore.write

    def forgetful(self: MemoryStore, writes: Any, written: float) -> set[str]:
        conflicts = write(self, writes, written)
        for record in self._records.values():
            record["unpublished"] = []
        return conflicts

    monkeypatch.setattr(MemoryStore, "write", forgetful)


def clears_what_was_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.4: just the ids that were confirmed are cleared."""
    clear = MemoryStore.clear

    def thorough(self: MemoryStore, published: Any, at: Any) -> None:
        clear(self, published, at)
        for key in published:
            self._records[key]["unpublished"] = []

    monkeypatch.setattr(MemoryStore, "clear", thorough)


def ids_without_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.4: two different events never share an id."""
    event_id = making.event_id
    monkeypatch.setattr(
        making, "event_id", lambda case, token, kind, _discriminator="": event_id(case, token, kind)
    )


def gives_no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.6: no deadline fires before the confirm time of its custody event plus its chance."""
    monkeypatch.setattr(escalation._Decider, "floor", lambda self, _confirmed: self.document_start)
    monkeypatch.setattr(
        escalation._Decider,
        "document_start",
        property(lambda self: self.document["state"]["clocks"]["case"]["started_at"]),
        raising=False,
    )


def marks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.6: what fired is marked, apart from desk state."""
    monkeypatch.setattr(escalation._Decider, "_mark", lambda _self, _deadline: None)


def fires_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.6: before firing, the custodian has caught up with its own queue."""
    monkeypatch.setattr(Markers, "horizon", lambda self, _reached: self._clock.now())


def suspends_without_moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.7: a suspension carries deadlines already moved by its longest time."""
    retimed = dispatch._retimed

    def stops(document: Any, atlas: Any, **changes: Any) -> Any:
        document = retimed(document, atlas, **changes)
        if changes.get("suspension") is not None:
            document["state"] = {**document["state"], "deadlines": []}
        return document

    monkeypatch.setattr(dispatch, "_retimed", stops)


def grants_what_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.2: the custodian grants only what who holds the case asks for."""
    monkeypatch.setattr(escalation._Decider, "_holds", lambda _self, _asked: True)


def leaves_units_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """事不绝、人不撤: who is called stays when the case goes to the next holder."""
    hop = escalation._Decider._hop

    def alone(self: Any, state: dict[str, Any], *said: Any, **more: Any) -> None:
        kept = {name: value for name, value in state.items() if name != "joined"}
        hop(self, kept, *said, **more)

    monkeypatch.setattr(escalation._Decider, "_hop", alone)


def tells_no_next_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next holder hears what the units did before it had the case."""
    told = whistle._holder_told

    def once(document: Any, emit: Any) -> Any:
        last, token = document.get("joined_told"), document["state"]["token"]
        if last is None:
            return told(document, emit)
        here = {**last, "round": token["round"], "hop": token["hop"]}
        return told({**document, "joined_told": here}, emit)

    monkeypatch.setattr(whistle, "_holder_told", once)


def tells_no_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.4: what one case means for another goes by events that are written with it."""
    monkeypatch.setattr(merging, "_tell_followers", lambda _decider: None)


def forgets_what_a_hop_overtook(monkeypatch: pytest.MonkeyPatch) -> None:
    """An act of a holder counts though a hop that left the case with them was decided before."""
    monkeypatch.setattr(escalation._Decider, "catch_up", lambda _decider, _late: None)


RULES: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    decides_again,
    last_one_wins,
    desks_write_hops,
    releases_nothing,
    forgets_early_releases,
    keeps_no_unpublished,
    clears_what_was_not_confirmed,
    ids_without_discriminator,
    gives_no_grace,
    marks_nothing,
    fires_by_the_clock,
    suspends_without_moving,
    grants_what_came_too_late,
    leaves_units_behind,
    tells_no_next_holder,
    tells_no_follower,
    forgets_what_a_hop_overtook,
)


def test_with_all_rules_every_history_holds() -> None:
    for history in HISTORIES:
        play(history)


@pytest.mark.parametrize("without", RULES, ids=lambda rule: rule.__name__)
def test_without_the_rule_a_history_goes_wrong(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    first_broken()


def first_broken() -> bytes:
    """The first of the histories that does not hold."""
    for history in HISTORIES:
        try:
            play(history)
        except Broken:
            return history
    pytest.fail(f"{len(HISTORIES)} histories hold without the rule")


def test_a_history_that_goes_wrong_shrinks_to_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    forgets_early_releases(monkeypatch)
    told = shortest(first_broken()).words
    assert len(told) <= 10, told


@pytest.mark.parametrize("by_marker", [True, False])
def test_an_answer_in_time_counts_because_of_the_marker(
    by_marker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.6: the custodian was away, and the answer lies before the marker in its queue."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    world.second()
    for action in ("acknowledge", "resolve"):
        assert world.act(LEVELS[0], world.entries(LEVELS[0])[0], action)
    world.clock.advance(2 * 86400)
    if not by_marker:
        fires_by_the_clock(monkeypatch)
    # Back again: it has read only up to the marker of before it went.
    world.fire(alone=True)
    world.settle()
    moved = [sent for sent in world.published if sent.event.type == "case.escalated"]
    assert bool(moved) is not by_marker


@pytest.mark.parametrize("over", [True, False])
def test_what_fired_is_told_once_however_often_the_case_is_migrated(
    over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.6: what fired is marked, and a hop to the same holder is none to another."""
    if not over:
        monkeypatch.setattr(escalation._Decider, "_is_over", lambda *_arguments: False)
    world = World(ATLAS)
    world.report("case-1")
    for _ in range(2 * len(LEVELS)):
        world.settle()
        world.clock.advance(8 * 86400)
        world.second()
    invariants.all_hold(world)
    for _ in range(2):
        held = world.nodes["escalation"].store.documents()["case-1"]["facts"]["profile"]
        (other,) = set(ATLAS.profiles) - {held}
        assert world.migrate("case-1", other)
        world.settle()
        world.clock.advance(3600)
        world.second()
        world.settle()
    with nullcontext() if over else pytest.raises(AssertionError):
        invariants.told_once_to_each_holder(world)
