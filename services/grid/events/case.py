"""What happens to a case at intake and at the desks."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.event_type import EventType
from services.grid.events.parts import (
    WORD,
    AddressSchema,
    CaseSchema,
    Flag,
    InstantField,
    Kept,
    attachments,
    extension_text,
    public_text,
)

REQUESTS = ("escalate", "delegate", "transfer", "return")
"""提级, 下派, 转办, 退回: up, down, sideways, and back to who sent it."""


class RequestSchema(Kept):
    """A change of custody that a desk asks the custodian for."""

    id = fields.String(required=True)
    action = fields.String(required=True, validate=validate.OneOf(REQUESTS))
    to = fields.Nested(AddressSchema, load_default=None, allow_none=True)
    reason = public_text(500, required=True, shortest=1)
    by = fields.String(required=True)
    authorise = Flag(metadata={"description": "with the holder's authority to settle it (授权)"})
    attachments = attachments()


class RequestedSchema(CaseSchema):
    """``case.requested``."""

    request = fields.Nested(RequestSchema, required=True)


class AssignedEventSchema(CaseSchema):
    """``case.assigned``."""

    deputy = fields.Boolean(load_default=False)
    unstaffed = fields.String(load_default=None, allow_none=True, validate=WORD)


class AttachedSchema(CaseSchema):
    """``case.resolved``: what was done stands in the state; with it what shows it."""

    attachments = attachments()


class AcknowledgedEventSchema(AttachedSchema):
    """``case.acknowledged``."""

    note = public_text(2000, lines=True, load_default="")


class ActedSchema(AttachedSchema):
    """``case.suspended`` and ``case.resumed``; what it is about stands in the state."""

    by = fields.String(required=True)
    note = public_text(2000, lines=True, load_default="")


class NoteSchema(Kept):
    """How far it is, as the holder says."""

    id = fields.String(required=True)
    by = fields.String(required=True)
    at = InstantField(required=True)
    text = public_text(2000, lines=True, required=True, shortest=1)
    step = fields.String(
        validate=WORD, metadata={"description": "the step of the procedure that was done"}
    )
    attachments = attachments()


class NotedSchema(CaseSchema):
    """``case.noted``."""

    note = fields.Nested(NoteSchema, required=True)


class ExtensionSchema(Kept):
    """An extension (延期) that is asked for: ``by`` how much, such as ``2d``."""

    id = fields.String(required=True)
    by = fields.String(required=True, validate=[validate.Length(1, 40), extension_text])
    reason = public_text(500, required=True, shortest=1)
    asked_by = fields.String(required=True)
    asked_at = InstantField(required=True)
    attachments = attachments()


class ExtensionEventSchema(CaseSchema):
    """``case.extension_requested`` and ``case.extended``."""

    extension = fields.Nested(ExtensionSchema, required=True)


class AnswerSchema(Kept):
    """Who answered, and when."""

    by = fields.String(required=True)
    note = public_text(2000, lines=True, load_default="")
    at = InstantField(required=True)
    attachments = attachments()


class ExtensionAnsweredSchema(ExtensionEventSchema):
    """``case.extension_granted`` and ``case.extension_refused``."""

    answer = fields.Nested(AnswerSchema, required=True)


class ReopeningSchema(Kept):
    """Why a case is taken up again, and who wanted it.

    ``why`` is ``asked`` by a person, or ``unsatisfied`` by feedback; absent in older events.
    """

    by = fields.String(required=True)
    reason = public_text(500, required=True, shortest=1)
    why = fields.String(validate=validate.OneOf(["asked", "unsatisfied"]))
    attachments = attachments()


class ReopenedSchema(CaseSchema):
    """``case.reopened``."""

    reopening = fields.Nested(ReopeningSchema, required=True)


class WatchedSchema(CaseSchema):
    """``case.watched``: everybody who is told, as references; the greatest version counts."""

    watchers = fields.List(fields.String(validate=validate.Length(1, 200)), required=True)
    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    by = fields.String(required=True)
    note = public_text(500, load_default="")
    attachments = attachments()


class UpdateSchema(Kept):
    """What the system that reported a case has learned since."""

    id = fields.String(required=True)
    by = fields.String(required=True)
    at = InstantField(required=True)
    text = public_text(2000, lines=True, required=True, shortest=1)
    attachments = attachments()


class UpdatedSchema(CaseSchema):
    """``case.updated``."""

    update = fields.Nested(UpdateSchema, required=True)


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
        about=("assigned",),
    ),
    EventType(
        "case.acknowledged",
        "The holder accepted the case (接单).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        AcknowledgedEventSchema,
        about=("acknowledged",),
    ),
    EventType(
        "case.resolved",
        "The holder settled the case (办结).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        AttachedSchema,
        about=("resolution",),
    ),
    EventType(
        "case.noted",
        "The holder says how far it is (进展).",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        NotedSchema,
    ),
    EventType(
        "case.suspended",
        "The case waits for something (挂起): its deadlines are moved by the longest time.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        ActedSchema,
        about=("suspension",),
    ),
    EventType(
        "case.resumed",
        "The case waits no longer: its deadlines are brought back.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        ActedSchema,
    ),
    EventType(
        "case.extension_requested",
        "The holder asks the level above for more time (延期).",
        ("dispatch",),
        ("intake", "dispatch", "notify"),
        ExtensionEventSchema,
        crosses=True,
    ),
    EventType(
        "case.extension_granted",
        "The level above grants more time; the holder applies it.",
        ("dispatch",),
        ("intake", "dispatch", "notify"),
        ExtensionAnsweredSchema,
        crosses=True,
    ),
    EventType(
        "case.extension_refused",
        "The level above grants no more time.",
        ("dispatch",),
        ("intake", "dispatch", "notify"),
        ExtensionAnsweredSchema,
        crosses=True,
    ),
    EventType(
        "case.extended",
        "The holder has more time, as granted.",
        ("dispatch",),
        ("intake", "escalation", "notify"),
        ExtensionEventSchema,
        about=("extensions",),
    ),
    EventType(
        "case.reopened",
        "A resolved case is taken up again (重新办理), in a new round.",
        ("intake",),
        ("intake", "dispatch", "escalation", "notify"),
        ReopenedSchema,
        custody=True,
    ),
    EventType(
        "case.watched",
        "Somebody wants to be told of what happens to a case (关注), or no longer.",
        ("intake",),
        ("intake", "notify"),
        WatchedSchema,
    ),
    EventType(
        "case.updated",
        "The system that reported a case has learned more of it.",
        ("intake",),
        ("intake", "notify"),
        UpdatedSchema,
    ),
    EventType(
        "case.requested",
        "A desk asks the custodian to change who holds the case.",
        ("dispatch",),
        ("intake", "escalation"),
        RequestedSchema,
    ),
)
