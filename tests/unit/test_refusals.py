"""An action that is not possible says why, and who holds the case (409)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from services.bus.auth import Identity
from services.bus.errors import Refused
from services.bus.fold import Document, Record, Work
from services.bus.web import Answer, Call
from services.dispatch import api as desk
from services.dispatch import model as dispatch
from services.escalation import model as custodian
from services.grid.clock import FrozenClock, plus
from services.grid.events import Event
from services.intake import api as intake
from tests.simulator.county import GRID, atlas
from tests.simulator.world import World

NOW = FrozenClock().now()
COUNTY = atlas()
HOUSEHOLD = {"level": "household", "division": GRID, "unit": None}


def shell(document: Document) -> Any:
    """A service that has just this document, and writes nothing."""
    record = Record("key", 1, document)

    def act(work: Work, _trail: object) -> Any:
        return work.change(record).answer

    return SimpleNamespace(
        act=act,
        config=SimpleNamespace(level="household"),
        county=SimpleNamespace(atlas=lambda: COUNTY, rules_for=COUNTY.rules_for),
        knowing=lambda made, known: made(known),
        now=plus(NOW, 60),
        store=SimpleNamespace(
            of_case=lambda _case: [record], read=lambda _keys: {"case-1": record}
        ),
    )


def reported() -> Event:
    world = World(COUNTY)
    world.report("case-1", division=GRID)
    return Event.read(world.published[0].body)


def entry() -> Document:
    document = dispatch.decide(dispatch.merge(None, reported()), COUNTY, NOW).document
    assert document is not None
    return document


def accepted() -> Document:
    document: Document = dispatch.acknowledge(entry(), "h-2", "", atlas=COUNTY, now=NOW).answer
    return document


def resolved() -> Document:
    said = "settled", "好"
    document: Document = dispatch.resolve(entry(), "h-2", *said, atlas=COUNTY, now=NOW).answer
    return document


SAID = {"note": "", "attachments": []}


@pytest.mark.parametrize(
    ("document", "act", "body", "why"),
    [
        (accepted, desk.acknowledge, SAID, "h-2 has acknowledged"),
        (entry, desk.resume, SAID, "is not suspended"),
        (resolved, desk.acknowledge, SAID, "the case is resolved"),
        (resolved, desk.resolve, {**SAID, "outcome": "settled", "scores": {}}, "has resolved"),
        (
            entry,
            desk.release,
            {**SAID, "unit": "centre", "score": 3},
            "centre was not called to this case",
        ),
    ],
)
def test_a_desk_says_who_holds_the_case(
    document: Callable[[], Document], act: Callable[..., Answer], body: dict[str, Any], why: str
) -> None:
    call = Call(body=body, identity=Identity("h-1", "operator"))
    call.guard.identity = call.identity
    with pytest.raises(Refused, match=why) as caught:
        act(shell(document()), call, "household", "case-1")
    assert caught.value.facts["held_by"] == HOUSEHOLD


@pytest.mark.parametrize(
    ("act", "body"),
    [
        (intake.reopen, {"reason": "又坏了", "attachments": []}),
        (intake.feedback, {"satisfied": True, "score": None, "comment": ""}),
    ],
)
def test_the_register_says_who_holds_the_case(
    act: Callable[..., Answer], body: dict[str, Any]
) -> None:
    world = World(COUNTY)
    world.report("case-1", division=GRID)
    document = world.nodes["intake"].store.documents()["case-1"]
    call = Call(body=body, identity=Identity("o-1", "operator"))
    call.guard.identity = call.identity
    with pytest.raises(Refused) as caught:
        act(shell(document), call, "case-1")
    assert caught.value.facts["held_by"] == HOUSEHOLD
    assert caught.value.facts["stage"] == "held"


def test_the_custodian_says_who_held_what_has_ended() -> None:
    document = custodian.decide(custodian.merge(None, reported(), NOW), COUNTY, NOW).document
    assert document is not None
    state = document["state"]
    ended = {**state, "token": {**state["token"], "stage": "withdrawn"}}
    with pytest.raises(Refused, match="has ended") as caught:
        custodian.supervise({**document, "state": ended}, "o-1", "急", atlas=COUNTY, now=NOW)
    assert caught.value.facts == {"stage": "withdrawn", "held_by": HOUSEHOLD}


def test_what_a_refusal_says_itself_stays() -> None:
    refused = Refused("no", held_by="whoever").saying(held_by="another", stage="held")
    assert refused.facts == {"held_by": "whoever", "stage": "held"}
    assert (str(refused), refused.detail) == ("no", "no")
