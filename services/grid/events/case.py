"""What happens to a case at intake and at the desks."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.event_type import EventType
from services.grid.events.parts import WORD, AddressSchema, CaseSchema, Kept, public_text


class RequestSchema(Kept):
    """A change of custody that a desk asks the custodian for."""

    id = fields.String(required=True)
    action = fields.String(required=True, validate=validate.OneOf(["escalate"]))
    to = fields.Nested(AddressSchema, load_default=None, allow_none=True)
    reason = public_text(500, required=True, shortest=1)
    by = fields.String(required=True)


class RequestedSchema(CaseSchema):
    """``case.requested``."""

    request = fields.Nested(RequestSchema, required=True)


class AssignedEventSchema(CaseSchema):
    """``case.assigned``."""

    deputy = fields.Boolean(load_default=False)
    unstaffed = fields.String(load_default=None, allow_none=True, validate=WORD)


class AcknowledgedEventSchema(CaseSchema):
    """``case.acknowledged``."""

    note = public_text(2000, lines=True, load_default="")


TYPES = (
    EventType(
        "case.reported",
        "A case was reported; it is held where it entered.",
        ("intake",),
        ("intake", "dispatch", "escalation", "notify"),
        CaseSchema,
        custody=True,
    ),
    EventType(
        "case.assigned",
        "A desk found who is on duty for a case, or that nobody is.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        AssignedEventSchema,
    ),
    EventType(
        "case.acknowledged",
        "The holder accepted the case (接单).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        AcknowledgedEventSchema,
    ),
    EventType(
        "case.resolved",
        "The holder settled the case (办结).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        CaseSchema,
    ),
    EventType(
        "case.requested",
        "A desk asks the custodian to change who holds the case.",
        ("dispatch",),
        ("intake", "escalation"),
        RequestedSchema,
    ),
)
