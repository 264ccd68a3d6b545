"""Units that are called to a case (吹哨报到): by its holder, through the custodian; what they do.

Who was called and released stands in the state. What a unit did does not: it is the unit's own.
"""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.case import AttachedSchema
from services.grid.events.custodian import PassedSchema
from services.grid.events.event_type import EventType
from services.grid.events.parts import (
    CallProgressSchema,
    CallReleaseSchema,
    CallSchema,
    CaseSchema,
    ProgressSchema,
)


class WhistledSchema(AttachedSchema):
    """``case.whistled`` and ``case.unit_released``: which units, as the state has them."""

    by = fields.String(required=True)
    units = fields.List(fields.String(), required=True)


class CallEventSchema(CaseSchema):
    """What is said of a call."""

    call = fields.Nested(CallSchema, required=True)


class CalledSchema(CallEventSchema):
    """``case.called``; with what the unit did, for a desk that has forgotten it."""

    progress = fields.Nested(ProgressSchema)


class ProgressedSchema(AttachedSchema, CallEventSchema):
    """``case.checked_in`` and ``case.finished``."""

    progress = fields.Nested(ProgressSchema, required=True)


class OverdueSchema(CallEventSchema):
    """``case.unit_overdue``; ``passed.kind`` is ``check_in`` or ``finish``."""

    progress = fields.Nested(ProgressSchema, required=True)
    passed = fields.Nested(PassedSchema, required=True)


class JoinedSchema(CaseSchema):
    """``case.joined``: of each call of the state whose unit did anything."""

    progress = fields.List(fields.Nested(CallProgressSchema), required=True)


class CallEndedSchema(CallEventSchema):
    """``case.call_ended``; ``why`` is ``released`` by the holder, or ``ended`` with the case."""

    why = fields.String(required=True, validate=validate.OneOf(["released", "ended"]))
    released = fields.Nested(CallReleaseSchema, required=True, allow_none=True)


TYPES = (
    EventType(
        "case.whistled",
        "The holder calls units to join a case (吹哨); the custodian tells each.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        WhistledSchema,
    ),
    EventType(
        "case.called",
        "A unit is called to a case; it must check in by a deadline.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        CalledSchema,
    ),
    EventType(
        "case.checked_in",
        "A unit that was called has come (报到).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        ProgressedSchema,
    ),
    EventType(
        "case.finished",
        "A unit that was called is done; it stays until the holder releases it.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        ProgressedSchema,
    ),
    EventType(
        "case.unit_overdue",
        "A unit that was called has not come in time, or is not done in time.",
        ("escalation",),
        ("intake", "notify"),
        OverdueSchema,
    ),
    EventType(
        "case.joined",
        "What the units that were called did so far, for whoever holds the case now.",
        ("escalation",),
        ("dispatch",),
        JoinedSchema,
    ),
    EventType(
        "case.unit_released",
        "The holder lets a unit leave, and scores it (评价).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        WhistledSchema,
    ),
    EventType(
        "case.call_ended",
        "A unit may leave: it was released, or the case has ended.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        CallEndedSchema,
    ),
)
