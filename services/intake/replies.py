"""What other systems are told on ``huashi.replies``, each under its own name.

``<system>.accepted`` and ``.rejected`` answer an event, ``.status`` says how far a case is that the
system reported, or that its unit has to do with: no names of officers, no notes. All may come
twice, with the same id; who wants the last word of a case takes the status with the greatest token.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

from services.bus.fold import Document
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.intake import acting

SOURCE = "huashi/intake"
_CALLS = ("case.called", "case.call_ended")
_ACTS = ("case.acknowledged", "case.resolved", "case.closed", "case.withdrawn", "case.supervised")


def answer(
    system: str, word: str, said: Mapping[str, Any], now: Instant, case: str | None
) -> tuple[str, Event]:
    """The answer to an event, with its routing key.

    :param word: ``accepted`` or ``rejected``.
    :param said: as over HTTP, with ``source``, ``id`` and ``type`` of the event.
    """
    known = said["id"] is not None
    # What has no id of its own gets an answer that has no fellow.
    identity = event_id(str(said["source"]), said["id"], word) if known else str(uuid.uuid4())
    event = Event(
        id=identity,
        type=f"reply.{word}",
        subject=system if case is None else case,
        time=now,
        source=SOURCE,
        data=dict(said),
    )
    return f"{system}.{word}", event


def tells(event: Event) -> bool:
    """Whether an event is one that the system which reported the case hears of."""
    return event.custody or event.type in _ACTS


def told(event: Event, document: Document, bound: Mapping[str, Collection[str]]) -> set[str]:
    """Which systems hear of an event: whose case it is, and whose unit has to do with it.

    :param bound: the systems that are bound to a unit, by its id.
    """
    if event.type in _CALLS:
        return {*bound.get(event.data["call"]["unit"], ())}
    if not tells(event):
        return set()
    own = {document["inbound"].partition(":")[0]} if "inbound" in document else set()
    return own.union(*(bound.get(unit, ()) for unit in acting.units(document)))


def status(event: Event, document: Document, system: str) -> tuple[str, Event]:
    """How far a case is after an event, for one system, with the routing key."""
    reporter, _, reference = document.get("inbound", "").partition(":")
    state = event.data["state"]
    told = {
        "case": event.subject,
        "tracking": document["facts"]["tracking"],
        "reference": reference if reporter == system else None,
        "event": event.full_type,
        "status": document["status"],
        "level": state["address"]["level"],
        "division": state["address"]["division"],
        "unit": state["address"]["unit"],
        "token": state["token"],
        "outcome": state["resolution"] and state["resolution"]["outcome"],
    }
    made = Event(
        id=event_id(event.id, system, "status"),
        type="reply.status",
        subject=event.subject,
        time=event.time,
        source=SOURCE,
        data=told,
    )
    return f"{system}.status", made
