"""What the custodian (the escalation service) decides."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.case import RequestedSchema, RequestSchema
from services.grid.events.event_type import EventType
from services.grid.events.merging import MergedSchema
from services.grid.events.parts import (
    WORD,
    AddressSchema,
    CallProgressSchema,
    CaseSchema,
    InstantField,
    Kept,
    TokenSchema,
    attachments,
    public_text,
)


class CustodySchema(CaseSchema):
    """Custody changed: from whom, what was asked for if a desk did, and who follows the case."""

    previous = fields.Nested(AddressSchema, required=True)
    request = fields.Nested(RequestSchema)
    merged = fields.Nested(MergedSchema)


class EscalatedSchema(CustodySchema):
    """``case.escalated``."""

    reason = fields.String(required=True, validate=validate.OneOf(["deadline_missed", "requested"]))


class TransferredSchema(CustodySchema):
    """``case.transferred``."""

    reason = fields.String(
        required=True,
        validate=validate.OneOf(
            [
                *("profile_migrated", "emergency", "emergency_ended", "requested"),
                *("merged", "freed", "reconciled", "caught_up"),
            ]
        ),
    )


class MovedSchema(CustodySchema):
    """``case.delegated`` and ``case.returned``."""

    reason = fields.String(required=True, validate=validate.OneOf(["requested"]))


class ReleaseSchema(Kept):
    """Which docket entry ends: the one of this token, at this address."""

    token = fields.Nested(TokenSchema, required=True)
    address = fields.Nested(AddressSchema, required=True)
    why = fields.String(required=True, validate=validate.OneOf(["custody", "resolution"]))
    granted = fields.String(metadata={"description": "the request that moved the case on"})


class ReleasedSchema(CaseSchema):
    """``case.released``."""

    released = fields.Nested(ReleaseSchema, required=True)


class PassedSchema(Kept):
    """A deadline whose time came: nominally, and when it was acted upon."""

    kind = fields.String(required=True, validate=WORD)
    of = fields.String(validate=WORD)
    at = fields.String()
    due = InstantField(required=True)
    fired_at = InstantField(required=True)
    count = fields.Integer(
        strict=True,
        load_default=1,
        metadata={"description": "how many repeats this one stands for"},
    )


class PassedEventSchema(CaseSchema):
    """``case.reminded`` and ``case.deadline_passed``."""

    passed = fields.Nested(PassedSchema, required=True)


class SupervisorSchema(Kept):
    """Who wants a case to be supervised, and why."""

    by = fields.String(required=True)
    reason = public_text(500, required=True, shortest=1)
    attachments = attachments()


class SupervisedSchema(PassedEventSchema):
    """``case.supervised``; ``passed.kind`` is ``asked`` if a person wants it.

    It is ``returned`` if the case was sent back as often as its profile lets it be, ``reopened`` if
    it was reopened as often as that.
    """

    supervisor = fields.Nested(SupervisorSchema)
    times = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    tell = fields.List(fields.String(), load_default=list)


class RefusedSchema(RequestedSchema):
    """``case.refused``; ``asked`` is the token under which the desk had asked."""

    asked = fields.Nested(TokenSchema, required=True)
    why = fields.String(required=True, validate=WORD)


class ReconciledSchema(CaseSchema):
    """``case.reconciled``; ``found`` is the kind of what the reconciler found.

    ``progress`` is what units did that were called, if any did.
    """

    found = fields.String(required=True, validate=WORD)
    progress = fields.List(fields.Nested(CallProgressSchema))


class MarkerSchema(Kept):
    """``custodian.marker``: everything queued before it has been read when it comes back."""

    by = fields.String(required=True)
    at = InstantField(required=True)


TYPES = (
    EventType(
        "case.escalated",
        "Custody moved up (提级), because a deadline passed or a desk asked for it.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        EscalatedSchema,
        custody=True,
    ),
    EventType(
        "case.transferred",
        "Custody moved sideways (转办), because the holder asked for it or other rules hold.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        TransferredSchema,
        custody=True,
    ),
    EventType(
        "case.delegated",
        "Custody moved down (下派), because the holder asked for it.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        MovedSchema,
        custody=True,
    ),
    EventType(
        "case.returned",
        "Custody moved back to who had sent the case (退回).",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        MovedSchema,
        custody=True,
    ),
    EventType(
        "case.released",
        "A docket entry is no longer the current one and ends.",
        ("escalation",),
        ("intake", "dispatch"),
        ReleasedSchema,
    ),
    EventType(
        "case.refused",
        "A desk's request was not granted.",
        ("escalation",),
        ("intake", "dispatch"),
        RefusedSchema,
    ),
    EventType(
        "case.reminded",
        "Part of a deadline's time has passed (催办).",
        ("escalation",),
        ("intake", "notify"),
        PassedEventSchema,
    ),
    EventType(
        "case.deadline_passed",
        "A deadline passed without what it waited for.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        PassedEventSchema,
    ),
    EventType(
        "case.supervised",
        "The last level's deadline passed, or a person wants it (督办): told upwards, repeated.",
        ("escalation",),
        ("intake", "notify"),
        SupervisedSchema,
    ),
    EventType(
        "case.reconciled",
        "The reconciler found that services disagree; this is the whole state that counts.",
        ("escalation",),
        ("intake", "dispatch"),
        ReconciledSchema,
    ),
    EventType(
        "custodian.marker",
        "Sent by the custodian to itself, to know how far it has read.",
        ("escalation",),
        ("escalation",),
        MarkerSchema,
        addressed=False,
    ),
)
