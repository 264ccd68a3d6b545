"""Each rule that the design marks ✱ is needed: without it the same histories go wrong.

A rule is taken out of the real functions for the length of a test. The histories are those of
``test_histories.py``; with all rules in place every one of them must hold.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from services.bus.memory import MemoryStore
from services.dispatch import model as dispatch
from services.escalation import model as escalation
from services.escalation.firing import SLACK_SECONDS
from services.grid.clock import plus
from services.grid.events import making
from services.grid.tokens import Token
from services.intake import model as intake
from tests.simulator import invariants
from tests.simulator.county import LEVELS, atlas
from tests.simulator.test_histories import history
from tests.simulator.world import World

ATLAS = atlas()
SEEDS = range(400)
STEPS = 80


def play(seed: int) -> None:
    """One history; raises what does not hold."""
    random = Random(seed)
    world = World(random, ATLAS, crashes=random.choice([0.0, 0.1]), rivals=0.2)
    history(world, random, STEPS)
    world.settle()
    invariants.all_hold(world)


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


RULES: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    decides_again,
    last_one_wins,
    desks_write_hops,
    releases_nothing,
    forgets_early_releases,
    keeps_no_unpublished,
    ids_without_discriminator,
    gives_no_grace,
    marks_nothing,
)


def test_with_all_rules_every_history_holds() -> None:
    for seed in SEEDS:
        play(seed)


@pytest.mark.parametrize("without", RULES, ids=lambda rule: rule.__name__)
def test_without_the_rule_a_history_goes_wrong(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    for seed in SEEDS:
        try:
            play(seed)
        except Exception:  # noqa: BLE001 - whatever it is, the history does not hold
            return
    pytest.fail(f"{len(SEEDS)} histories hold without the rule: {without.__doc__}")


@pytest.mark.parametrize("by_marker", [True, False])
def test_an_answer_in_time_counts_because_of_the_marker(by_marker: bool) -> None:
    """2.6: the custodian was away, and the answer lies before the marker in its queue."""
    world = World(Random(1), ATLAS)
    world.report("case-1")
    world.settle()
    marked = world.clock.now()
    for action in ("acknowledge", "resolve"):
        assert world.act(LEVELS[0], world.entries(LEVELS[0])[0], action)
    world.clock.advance(2 * 86400)
    # Back again: it has read only up to the marker of before it went.
    world.fire(plus(marked, SLACK_SECONDS) if by_marker else None)
    world.settle()
    moved = [event for event in world.published if event.type == "case.escalated"]
    assert bool(moved) is not by_marker
