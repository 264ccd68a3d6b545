"""Sending a system once more what its queue has lost, and counting what it loses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validates_schema

from services.bus import logs, metrics
from services.bus.errors import Refused, Retry
from services.bus.lost import NoQueue
from services.bus.openapi import Shown
from services.bus.paging import Cursor, CursorField
from services.bus.problems import Problem
from services.bus.systems import EVENTS_WAITING
from services.bus.web import Call
from services.grid import json
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.parts import InstantField
from services.intake import replies
from services.intake.replay import event_of
from services.intake.shell import IntakeShell
from services.intake.subscribing import bindings, caught_up, losing, matcher

log = logs.get(__name__)

_PAGE = 500
_ROOM = EVENTS_WAITING // 2


class ReplayBody(Schema):
    """Body of ``POST /v1/systems/{name}/replay``."""

    example: ClassVar[dict[str, Any]] = {"from": "2026-03-02T08:00:00+08:00"}

    from_ = InstantField(
        required=True,
        data_key="from",
        metadata={"description": "when intake received the first"},
    )
    to = InstantField(
        load_default=None,
        metadata={"description": "before which it received the last; now, if left out"},
    )
    cursor = CursorField(load_default=None)

    @validates_schema
    def _in_order(self, data: Mapping[str, Any], **_: Any) -> None:
        if data["to"] is not None and data["to"] <= data["from_"]:
            raise ValidationError("it must be later than from", "to")


class ReplayedShown(Shown):
    """A page of a replay."""

    looked = fields.Integer(metadata={"description": "events of the timeline that were looked at"})
    published = fields.Integer(metadata={"description": "of these, into the system's queue"})
    to = InstantField(metadata={"description": "send it along with the next cursor"})
    next = fields.String(allow_none=True, metadata={"description": "null: that was all"})


TOO_FULL = {
    409: "The system has no subscription, or no queue at the broker.",
    429: "Too many events wait for the system already; `Retry-After` says when to come again.",
}


def replay(intake: IntakeShell, call: Call, name: str) -> dict[str, Any]:
    """Publishes a page of the timeline once more, into the queue of one system.

    :raises Problem: a 409 without a queue, a 429 while too much waits in it.
    :raises Retry: the broker is away, or did not confirm all of it.
    """
    body = call.body
    bound = bindings(intake.registrar.one(name), intake.county.atlas())
    if not bound:
        raise Refused(f"{name} has no subscription: huashi system subscribe {name}")
    must_have_room(intake, name)
    to = body["to"] or intake.now
    after = body["cursor"] or Cursor(body["from_"], "")
    read = intake.timeline.since(Instant(after.value), after.key, _PAGE)
    found = [entry for entry in read if entry["received"] < to]
    following = None
    if found and len(found) == _PAGE:
        following = Cursor(found[-1]["received"], found[-1]["_id"]).text()
    fits = matcher(bound)
    # An entry of a version that kept no key can't be told from one that was not for it.
    events = [event_of(entry) for entry in found if fits.fullmatch(entry.get("key", ""))]
    if len(intake.publisher.replay(name, events)) < len({event.id for event in events}):
        raise Retry(f"not all was confirmed: huashi system repair {name} mends a missing binding")
    metrics.REPLAYED.inc(len(events))
    call.trail.about(system=name)
    if following is None:
        intake.registrar.note(name, lambda system: caught_up(system, body["from_"], to))
    return {"looked": len(found), "published": len(events), "to": to, "next": following}


def must_have_room(intake: IntakeShell, name: str) -> None:
    """That the queue of a system is not so full that a replay would be lost as well.

    :raises Problem: a 429.
    """
    try:
        waiting = intake.queues.waiting(name)
    except NoQueue as error:
        cure = f"huashi system repair {name} makes it"
        raise Refused(f"the broker has no queue of events for {name}: {cure}") from error
    if waiting > _ROOM:
        raise Problem(
            429,
            f"{waiting} events wait for {name} already, and a replay leaves half of its queue to "
            "what is new: it must read them first",
            kind="too_full",
            headers={"Retry-After": "1"},
            waiting=waiting,
        )


def count_losses(intake: IntakeShell) -> None:
    """Looks what systems' queues have dropped, keeps it in their records, and tells them."""
    try:
        for name, system in intake.systems.all().items():
            if system.get("subscription") is not None:
                _count_losses(intake, name)
    except Retry as error:
        log.warning("losses are counted later", why=str(error))


def _count_losses(intake: IntakeShell, name: str) -> None:
    since = intake.now

    def note(body: bytes) -> None:
        # A crash after this forgets how many, but not since when.
        nonlocal since
        since = _since(intake, body)
        intake.registrar.note(name, lambda system: losing(system, since, intake.now, 0))

    try:
        count = intake.queues.lost(name, note)
    except NoQueue as error:
        # A replay says it to the operator, and the cure.
        log.debug("a subscription has no queue", system=name, why=str(error))
        return
    if not count:
        return
    now = intake.now
    found = intake.registrar.note(name, lambda system: losing(system, since, now, count))
    metrics.LOST.labels(name).inc(count)
    log.warning("a system does not keep up, and lost events", system=name, count=count)
    if found is not None:
        intake.publisher.reply([told(name, found["lost"], now)])


def _since(intake: IntakeShell, body: bytes) -> Instant:
    """When intake received an event that was lost; if it has not yet, now."""
    try:
        identity = json.loads(body)["id"]
    except (ValueError, KeyError, TypeError):
        return intake.now
    return intake.timeline.received(identity) or intake.now


def told(name: str, lost: Mapping[str, Any], now: Instant) -> tuple[str, Event]:
    """What a system hears of its losses, with the routing key."""
    made = Event(
        id=str(uuid.uuid4()),
        type="reply.lost",
        subject=name,
        time=now,
        source=replies.SOURCE,
        data=dict(lost),
    )
    return f"{name}.lost", made
