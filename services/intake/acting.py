"""What systems that are bound to a unit do for it: the register asks the unit's desk.

``asks`` of a record are by their id ``{source, id, type, system, digest, at, answer}``: which event
of which system asked, and what became of it, none while the desk has not answered. Only the desk
knows whether it can be done; what the register knows to be in vain it refuses itself.

``units`` are all that the case was ever with, or that were called to it, whose systems are told how
far it is; ``called`` are the ids of those calls that the custodian has made: a whistle of a holder
who had lost the case calls nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.grid import json, whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.directory import Unit
from services.grid.events import Event
from services.grid.events.bindings import Incoming
from services.grid.events.making import case_event
from services.grid.tokens import Address, Stage

ASKED, ANSWERED = "case.act_asked", "case.act_answered"
_CALLED = "case.called"
REMEMBERED = 100
"""How many asks of a case are remembered."""
WAITING = 20
"""How many of a case may wait for their answer."""


def ask(
    document: Document,
    event: Incoming,
    identity: str,
    said: Mapping[str, Any],
    unit: Unit,
    *,
    system: str,
    by: str,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """Asks the desk of a system's unit to do something to a case; the same again changes nothing.

    :param identity: that of the system's event.
    :param said: ``act``, one of :data:`services.grid.events.asks.ACTS`, and what it says.
    :raises Refused: the unit has nothing to do with the case, it has ended, another ask had this
        id, or too many wait.
    """
    asks, digest = document.get("asks", {}), _digest(said)
    if identity in asks:
        if asks[identity]["digest"] != digest:
            raise Refused("another event was sent under the same source and id: use a new id")
        return Decision(document, answer=document)
    about = _about(document, said["act"], unit)
    if sum(item["answer"] is None for item in asks.values()) >= WAITING:
        raise Refused(f"{WAITING} acts on this case wait for the desk's answer: wait for them")
    sent = {"id": identity, "by": by, "level": unit.level, "division": unit.division}
    kept = {
        **{"source": event.source, "id": event.id, "type": event.type, "system": system},
        **{"digest": digest, "at": now, "answer": None},
    }
    document = {**document, "asks": _remembered({**asks, identity: kept})}
    asked = case_event(
        ASKED,
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        # A register that was restored asks once more: that is another event.
        discriminator=f"{identity}:{now}",
        addressed=Address(unit.level, unit.division, unit.id),
        ask={**sent, "unit": unit.id, **said},
        **about,
    )
    return Decision(document, [asked], document)


def merge(document: Document, event: Event) -> Document:
    """The record, with what it learns here from an event; in whatever order events come."""
    there = {event.data["state"]["address"].get("unit")}
    if event.type == _CALLED:
        call = event.data["call"]
        there.add(call["unit"])
        called = sorted({*document.get("called", ()), call["id"]})
        document = {**document, "called": called}
    there -= {None}
    if there:
        document = {**document, "units": sorted({*document.get("units", ()), *there})}
    if event.type != ANSWERED:
        return document
    told, asks = event.data["answered"], document.get("asks", {})
    known = asks.get(told["id"])
    if known is None or known["answer"] is not None:
        return document
    answer = {name: told[name] for name in ("answer", "errors", "held_by") if name in told}
    return {**document, "asks": {**asks, told["id"]: {**known, "answer": answer}}}


def units(document: Document) -> Sequence[str]:
    """The units that have, or had, to do with a case."""
    found: Sequence[str] = document.get("units", ())
    return found


def no_such_case(unit: Unit) -> Refused:
    """Said of a case of others as of none: whether there is one is nobody's business."""
    return Refused(f"{unit.id} has no such case: compare its id with what you were told")


def _about(document: Document, act: str, unit: Unit) -> dict[str, Any]:
    """What of the case is meant: the unit's call to check in, else that it holds the case.

    :raises Refused: it has nothing of the kind.
    """
    state = document["state"]
    if unit.id not in units(document):
        raise no_such_case(unit)
    holder, stage = state["address"], state["token"]["stage"]
    if stage != Stage.HELD.word:
        raise Refused(f"the case is {stage}", stage=stage, held_by=holder)
    if act == "check_in":
        called = document.get("called", ())
        calls = [
            item
            for item in whistles.standing(state)
            if item["unit"] == unit.id and item["id"] in called
        ]
        if not calls:
            raise Refused(f"{unit.id} is not called to this case", held_by=holder)
        return {"call": calls[-1]}
    if holder["unit"] != unit.id:
        where = f"{holder['level']} {holder['unit'] or holder['division']}"
        raise Refused(f"the case is not with {unit.id}: {where} holds it", held_by=holder)
    return {}


def _remembered(asks: Mapping[str, Any]) -> dict[str, Any]:
    """Without the oldest of those that are long answered."""
    answered = [identity for identity, item in asks.items() if item["answer"] is not None]
    old = set(answered[: max(0, len(asks) - REMEMBERED)])
    return {identity: item for identity, item in asks.items() if identity not in old}


def _digest(said: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(dict(sorted(said.items()))), digest_size=12).hexdigest()
