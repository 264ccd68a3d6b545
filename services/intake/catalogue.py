"""What other systems send and are told, for the published contracts: each as an event type."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, validate

from services.bus.openapi import Shown
from services.bus.systems import OfSystems
from services.bus.topology import INBOUND, REPLIES
from services.grid.events.parts import TokenSchema
from services.intake.door import AcceptedShown, RefusedShown
from services.intake.inbound import TYPES as SENT
from services.intake.subscribing import LostShown

_CASE = "5f0e6a52-6e0f-5d3f-8f1b-0f4f6a3b2c1d"
_EVENT = {
    "source": "hotline",
    "id": "12345-2026-0302-77-1",
    "type": "huashi.case.report.v1",
}


class AcceptedReply(AcceptedShown):
    """``<system>.accepted``: an event was accepted, now or before."""

    example: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "case": _CASE,
        "tracking": "7K3M9QXW2A",
        "reference": "12345-2026-0302-77",
        "status": "reported",
        "pending": False,
        "entries": [{"id": "officer:v-214-2", "change": "new"}],
        "reading": "beyond",
    }
    minimal: ClassVar[dict[str, Any]] = {**_EVENT, "type": "huashi.directory.officer.v1"}

    class Meta:
        exclude = ("index",)


class RejectedReply(RefusedShown):
    """``<system>.rejected``: an event was refused; of what can't be read ``id`` is null."""

    example: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "why": "refused",
        "errors": [{"field": "event", "detail": "the case is not with team: township holds it"}],
        "held_by": {"level": "township", "division": "469002104", "unit": None},
    }
    minimal: ClassVar[dict[str, Any]] = {
        "source": None,
        "id": None,
        "type": None,
        "why": "invalid",
        "errors": [{"field": "body", "detail": "is no JSON"}],
    }


class StatusReply(Shown):
    """``<system>.status``: how far a case is; of two the one with the greater token holds."""

    example: ClassVar[dict[str, Any]] = {
        "case": _CASE,
        "tracking": "7K3M9QXW2A",
        "reference": "12345-2026-0302-77",
        "event": "huashi.case.resolved.v1",
        "status": "resolved",
        "level": "village",
        "division": "469002104214",
        "unit": "469002104214-security",
        "token": {"round": 1, "stage": "resolved", "hop": 2, "seq": 3},
        "outcome": "settled",
    }
    minimal: ClassVar[dict[str, Any]] = {
        **example,
        "reference": None,
        "unit": None,
        "outcome": None,
    }

    case = fields.String()
    tracking = fields.String()
    reference = fields.String(allow_none=True, metadata={"description": "the system's own"})
    event = fields.String(metadata={"description": "what happened"})
    status = fields.String(
        validate=validate.OneOf(["reported", "acknowledged", "resolved", "closed", "withdrawn"])
    )
    level = fields.String()
    division = fields.String()
    unit = fields.String(allow_none=True)
    token = fields.Nested(TokenSchema)
    outcome = fields.String(allow_none=True)


class LostReply(LostShown):
    """``<system>.lost``: its queue of events has dropped some; it may have them replayed."""

    example: ClassVar[dict[str, Any]] = {
        "count": 12,
        "since": "2026-03-02T08:00:00.000Z",
        "until": "2026-03-02T08:05:00.000Z",
    }
    minimal: ClassVar[dict[str, Any]] = example


TYPES: tuple[OfSystems, ...] = (
    *(
        OfSystems(kind.name, kind.meaning, ("system",), ("intake",), kind.schema, exchange=INBOUND)
        for kind in SENT.values()
    ),
    *(
        OfSystems(f"reply.{word}", meaning, ("intake",), ("system",), schema, exchange=REPLIES)
        for word, meaning, schema in (
            ("accepted", "What a system sent was accepted.", AcceptedReply),
            ("rejected", "What a system sent was refused, with every error.", RejectedReply),
            ("lost", "A system that subscribed has lost events.", LostReply),
            ("status", "How far a case is that is the system's, or its unit's.", StatusReply),
        )
    ),
)
"""What goes over ``huashi.inbound`` and ``huashi.replies``."""
