"""What a system that is bound to a unit does at the unit's desk: intake asks, the desk answers."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.event_type import EventType
from services.grid.events.parts import (
    CODE,
    WORD,
    AddressSchema,
    CallSchema,
    CaseSchema,
    Kept,
    attachments,
    public_text,
)

ACTS = ("acknowledge", "progress", "check_in", "resolve")
"""接单, 进展, 报到, 办结."""


class OfUnitSchema(Kept):
    """Who asks, for which unit, and what; ``id`` is that of the system's own event."""

    id = fields.String(required=True)
    act = fields.String(required=True, validate=validate.OneOf(ACTS))
    by = fields.String(required=True)
    level = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)
    unit = fields.String(required=True, validate=validate.Length(1, 80))


class AskSchema(OfUnitSchema):
    """An act as an officer of the unit would do it; what an act does not need is left out."""

    note = public_text(2000, lines=True, load_default="")
    step = fields.String(validate=WORD)
    outcome = fields.String(validate=WORD)
    scores = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 80)),
        values=fields.Integer(strict=True, validate=validate.Range(1, 5)),
    )
    attachments = attachments()


class ActAskedSchema(CaseSchema):
    """``case.act_asked``; with the unit's call, if it is about that and not about the case."""

    ask = fields.Nested(AskSchema, required=True)
    call = fields.Nested(CallSchema)


class ActAnswerSchema(OfUnitSchema):
    """What became of it; of what was refused each wrong field with why, and who holds the case."""

    answer = fields.String(required=True, validate=validate.OneOf(["accepted", "refused"]))
    errors = fields.Dict(keys=fields.String(), values=fields.String())
    held_by = fields.Nested(AddressSchema)


class ActAnsweredSchema(CaseSchema):
    """``case.act_answered``."""

    answered = fields.Nested(ActAnswerSchema, required=True)


TYPES = (
    EventType(
        "case.act_asked",
        "A system that is bound to a unit acts for it: the unit's desk does it, or says why not.",
        ("intake",),
        ("intake", "dispatch"),
        ActAskedSchema,
    ),
    EventType(
        "case.act_answered",
        "A unit's desk did what a system asked for, or says why not.",
        ("dispatch",),
        ("intake",),
        ActAnsweredSchema,
    ),
)
