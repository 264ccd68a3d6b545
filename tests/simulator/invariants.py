"""What must hold of every history, in one place."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from services.grid import deadlines
from services.grid.clock import Instant, plus
from services.grid.tokens import Address, Stage, Token
from tests.simulator.county import LEVELS
from tests.simulator.world import World


def all_hold(world: World, dead: tuple[str, ...] = ()) -> None:
    """All of them, once the bus is quiet; ``dead`` desks have not read their queues."""
    agreement(world, dead)
    armed(world)
    entries_end(world, dead)
    identities(world)
    assigned_once(world)
    fired_once(world)
    nobody_short_changed(world)


def agreement(world: World, dead: tuple[str, ...] = ()) -> None:
    """Register and custody show the same state, and so does the docket entry that counts."""
    register = world.nodes["intake"].store.documents()
    custody = world.nodes["escalation"].store.documents()
    assert register.keys() == custody.keys()
    for case, record in register.items():
        held = custody[case]
        assert record["state"] == held["state"], case
        assert record["facts"] == held["facts"], case
        assert record["late_custody"] == held["late_custody"], case
        state = record["state"]
        level = state["address"]["level"]
        if level in dead:
            continue
        token = Token.of(state["token"])
        entry = world.nodes[level].store.documents()[f"{case}:{token.round}.{token.hop}"]
        assert entry["state"] == state, case


def armed(world: World) -> None:
    """No open case is without a deadline at the custodian, and no ended one has one."""
    for case, document in world.nodes["escalation"].store.documents().items():
        held = document["state"]["token"]["stage"] == "held"
        assert (document["next_due"] is not None) == held, case


def entries_end(world: World, dead: tuple[str, ...] = ()) -> None:
    """Every docket entry ended, but the one of the hop that holds the case."""
    custody = world.nodes["escalation"].store.documents()
    for level in LEVELS:
        if level in dead:
            continue
        for key, entry in world.nodes[level].store.documents().items():
            token = Token.of(custody[entry["case"]]["state"]["token"])
            current = (entry["round"], entry["hop"]) == (token.round, token.hop)
            live = current and token.stage == Stage.HELD
            assert (entry["status"] == "live") == live, key
            if current and token.stage == Stage.RESOLVED:
                assert entry["ended"] == "resolved", key
            elif not current:
                assert entry["ended"] in ("custody", "resolution"), key


def identities(world: World) -> None:
    """The same id always means the same event, and the same decision the same id."""
    bodies: dict[str, bytes] = {}
    for event in world.published:
        assert bodies.setdefault(event.id, event.body()) == event.body(), event.type


def assigned_once(world: World) -> None:
    """Who is on duty is decided once for each time that a case comes to a desk."""
    decided: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for event in world.published:
        if event.type == "case.assigned":
            token = Token.of(event.data["state"]["token"])
            decided[event.subject, token.round, token.hop].add(event.id)
    for where, ids in decided.items():
        assert len(ids) == 1, where


def fired_once(world: World) -> None:
    """Each deadline of each hop passes once, and a case leaves a hop once.

    Custody never moves after a resolution that the custodian knew of.
    """
    passed: dict[Any, set[str]] = defaultdict(set)
    for event in world.published:
        if event.type not in ("case.deadline_passed", "case.escalated"):
            continue
        token = Token.of(event.data["state"]["token"])
        assert token.stage == Stage.HELD
        what = event.data["passed"]["kind"] if "passed" in event.data else "escalated"
        passed[event.subject, token.round, token.hop, event.type, what].add(event.id)
    for where, ids in passed.items():
        assert len(ids) == 1, where


def nobody_short_changed(world: World) -> None:
    """A deadline passes only when its holder has had a chance to hear of the case.

    That is the least of ``grace`` and the level's own time, since the custody was published.
    """
    heard: dict[tuple[str, int, int], Instant] = {}
    for event, at in zip(world.published, world.published_at, strict=True):
        if "state" not in event.data:
            continue
        token = Token.of(event.data["state"]["token"])
        where = event.subject, token.round, token.hop
        if event.custody:
            heard.setdefault(where, at)
        if event.type != "case.deadline_passed":
            continue
        facts, state = event.data["case"], event.data["state"]
        profile = world.atlas.profile(facts["profile"])
        own = deadlines.own_time(profile, facts, Address.of(state["address"]))
        chance = plus(heard[where], min(profile.grace, own))
        assert event.data["passed"]["fired_at"] >= chance, where


def supervised(world: World, case: str) -> None:
    """The case reached the last level and was told upwards."""
    record = world.nodes["intake"].store.documents()[case]
    assert record["state"]["address"]["level"] == LEVELS[-1]
    assert record["supervision"]["times"] >= 1
