"""A pass, step by step: who does not answer, who is behind, and how much is mended at once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from services.bus.errors import Retry
from services.bus.rpc import NoAnswer
from services.dispatch import reconciliation as desk
from services.escalation import reconciler
from services.escalation.firing import Markers
from services.escalation.reconciler import Pass
from services.grid import json
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.directory import Directory
from services.intake import reconciliation as register
from tests.simulator.county import LEVELS, atlas
from tests.simulator.world import World

ATLAS = atlas()
Ask = Callable[..., tuple[list[Any], bool]]


@pytest.fixture
def world() -> World:
    """Three cases that their household holds."""
    world = World(ATLAS)
    for number in range(3):
        world.report(f"case-{number}")
    world.settle()
    return world


def after(store: Any, live: Callable[[Any], bool], key: str, limit: int) -> list[Any]:
    found = sorted(name for name, item in store.documents().items() if live(item) and name > key)
    return [store.read([name])[name] for name in found[:limit]]


def rpc(world: World) -> Ask:
    """What the services would answer."""

    def call(instance: str, method: str, *arguments: Any) -> tuple[list[Any], bool]:
        name = instance.removeprefix("dispatch-")
        store = world.nodes[name].store
        if method == "cases_of":
            return register.cases_of(store, arguments[0], whole=arguments[1]), False
        if method == "calls_of":
            return desk.calls_of(store, arguments[0]), False
        if method == "entries_of":
            return desk.entries_of(store, arguments[0], whole=arguments[1]), False

        def live(item: Any) -> bool:
            if name == "intake":
                return bool(item["state"]["token"]["stage"] == "held")
            return bool(item["status"] == "live")

        told: Any = register._told if name == "intake" else desk._told
        return [told(record, whole=False) for record in after(store, live, *arguments)], False

    return call


class Custodian:
    """A custodian in memory, which has read its own queue up to ``reached``."""

    def __init__(self, world: World) -> None:
        node = world.nodes["escalation"]
        self.clock, self.fold, self.store = world.clock, node.replicas[0].fold, node.store
        self.county = SimpleNamespace(atlas=lambda: self.known, entries=lambda: [])
        self.known = ATLAS
        self.upto: Instant = world.clock.now()
        self.custodians = SimpleNamespace(reached=lambda _by: self.upto)
        self.ring = lambda: None

        def held(item: Any) -> bool:
            return bool(item["state"]["token"]["stage"] == "held")

        self.store.open_cases = lambda key, limit: after(self.store, held, key, limit)  # type: ignore[attr-defined]

    @property
    def now(self) -> Instant:
        return self.clock.now()


def run(custodian: Custodian, ask: Ask, between: Callable[[], None] = lambda: None) -> Pass:
    """A whole pass; ``between`` happens in its pause before the second look."""
    made = Pass(custodian, Markers(custodian.clock))  # type: ignore[arg-type]
    made.rpc = SimpleNamespace(call=ask)  # type: ignore[assignment]
    for wait in made.steps():
        if wait == reconciler.PAUSE_SECONDS:
            between()
    return made


def records(world: World, name: str) -> dict[str, Any]:
    return world.nodes[name].store._records


def change(world: World, name: str, key: str, **changes: Any) -> None:
    record = records(world, name)[key]
    record["document"] = json.dumps({**json.loads(record["document"]), **changes})


def disarm(world: World, case: str) -> None:
    change(world, "escalation", case, next_due=None)


def test_it_compares_everything_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "PAGE", 1)
    made = run(Custodian(world), rpc(world))
    counts = {"custody": 3, "register": 3, "household": 3, **dict.fromkeys(LEVELS[1:], 0)}
    assert made.compared == counts
    assert (made.found, made.not_asked) == ({}, {})


def test_without_a_profile_there_is_no_pass(world: World) -> None:
    custodian = Custodian(world)
    custodian.known = Atlas(Directory(divisions=(), units=(), officers=()), {}, [])
    with pytest.raises(Retry):
        run(custodian, rpc(world))


def test_what_is_mended_in_the_pause_was_in_flight(world: World) -> None:
    lost = records(world, "household").pop("case-1:1.0")
    made = run(
        Custodian(world),
        rpc(world),
        lambda: records(world, "household").update({"case-1:1.0": lost}),
    )
    assert made.found == {}
    assert made.result("complete")["explained"] == 1


def test_who_is_behind_is_given_time(world: World) -> None:
    del records(world, "household")["case-1:1.0"]
    disarm(world, "case-2")
    answer = rpc(world)
    made = run(Custodian(world), lambda *question: (answer(*question)[0], True))
    assert made.found == {"unarmed": 1}
    made = run(Custodian(world), answer)
    assert made.found == made.repaired == {"entry_missing": 1}


def test_a_custodian_that_is_behind_takes_nobodys_word(world: World) -> None:
    del records(world, "escalation")["case-1"]
    custodian = Custodian(world)
    world.clock.advance(60)
    assert run(custodian, rpc(world)).found == {}
    custodian.upto = world.clock.now()
    made = run(custodian, rpc(world))
    assert made.found == made.repaired == {"custody_missing": 1}
    assert made.result("complete")["findings"][0] == {
        "case": "case-1",
        "kind": "custody_missing",
        "level": None,
        "custodian": None,
        "other": "1.held.0.1",
        "repaired": True,
    }


def test_who_does_not_answer_is_asked_twice_and_left_out(world: World) -> None:
    del records(world, "household")["case-1:1.0"]
    asked: list[str] = []
    answer = rpc(world)

    def call(instance: str, *question: Any) -> tuple[list[Any], bool]:
        if instance != "dispatch-household":
            return answer(instance, *question)
        asked.append(instance)
        raise NoAnswer("it is dead")

    made = run(Custodian(world), call)
    assert len(asked) == 2
    assert (made.found, made.not_asked) == ({}, {"household": "it is dead"})
    assert made.compared["register"] == 3


def test_a_pass_mends_so_many_and_reports_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "MOST_REPAIRS", 2)
    for case in records(world, "escalation"):
        disarm(world, case)
    made = run(Custodian(world), rpc(world))
    assert (made.found, made.repaired) == ({"unarmed": 3}, {"unarmed": 2})
    assert run(Custodian(world), rpc(world)).found == {"unarmed": 1}


def test_a_desk_speaks_for_its_own_level_only(world: World) -> None:
    """One that claims custody for somebody else is not believed."""
    state = world.nodes["household"].store.documents()["case-1:1.0"]["state"]
    state["token"]["hop"] = 9
    state["address"] = {"level": "township", "division": "469002104", "unit": None}
    change(world, "household", "case-1:1.0", state=state)
    made = run(Custodian(world), rpc(world))
    assert (made.found, made.repaired) == ({"custody_behind": 1}, {})
    held = world.nodes["escalation"].store.documents()["case-1"]["state"]
    assert held["token"]["hop"] == 0
