"""Cases that are one matter: linked (关联), or merged so that one follows the other (并案)."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.event_type import EventType
from services.grid.events.parts import (
    CaseSchema,
    Kept,
    ResolutionSchema,
    attachments,
    public_text,
)

_CASE = validate.Length(1, 200)


class LinkSchema(Kept):
    """Another case that has to do with this one, or no longer; the greatest version counts."""

    case = fields.String(required=True, validate=_CASE)
    on = fields.Boolean(required=True)
    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))


class LinkedSchema(CaseSchema):
    """``case.linked``."""

    link = fields.Nested(LinkSchema, required=True)
    by = fields.String(required=True)
    note = public_text(500, load_default="")
    attachments = attachments()


class HopSchema(Kept):
    """A hop of a case, with which it began to follow or no longer does."""

    round = fields.Integer(required=True, strict=True)
    hop = fields.Integer(required=True, strict=True)


class FollowingSchema(Kept):
    """Which case it follows now, none if no longer, and why.

    ``merged`` by a person, who is ``by``; ``moved`` because the one that it followed follows
    another; ``withdrawn`` because that one was; ``left`` because this one was reopened, or resolved
    before it heard. ``since`` is the hop from which on this is so; of ``left``, that with which it
    began to follow the one ``before``.
    """

    case = fields.String(required=True, allow_none=True, validate=_CASE)
    why = fields.String(
        required=True, validate=validate.OneOf(["merged", "moved", "withdrawn", "left"])
    )
    before = fields.String(required=True, allow_none=True, validate=_CASE)
    by = fields.String(required=True)
    reason = public_text(500, required=True)
    attachments = attachments()
    since = fields.Nested(HopSchema)


class FollowedSchema(CaseSchema):
    """``case.followed``."""

    following = fields.Nested(FollowingSchema, required=True)


class MergedSchema(Kept):
    """The cases that follow this one; the greatest version counts."""

    followers = fields.List(fields.String(validate=_CASE), required=True)
    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))


class MergedEventSchema(CaseSchema):
    """``case.merged``; ``joined`` are those that are new, none if others left.

    It is absent in older events.
    """

    merged = fields.Nested(MergedSchema, required=True)
    joined = fields.List(fields.String(validate=_CASE))


class LedSchema(Kept):
    """What a case says to one that follows it since a hop: it ended, or follows ``to`` itself."""

    follower = fields.String(required=True, validate=_CASE)
    since = fields.Nested(HopSchema, required=True)
    why = fields.String(required=True, validate=validate.OneOf(["resolved", "moved", "withdrawn"]))
    to = fields.String(required=True, allow_none=True, validate=_CASE)


class LedEventSchema(CaseSchema):
    """``case.led``."""

    led = fields.Nested(LedSchema, required=True)


class LeadSchema(Kept):
    """The case that this one follows, and how it was resolved."""

    case = fields.String(required=True, validate=_CASE)
    resolution = fields.Nested(ResolutionSchema, required=True)


class LeadResolvedSchema(CaseSchema):
    """``case.lead_resolved``."""

    lead = fields.Nested(LeadSchema, required=True)


TYPES = (
    EventType(
        "case.linked",
        "Two cases have to do with each other (关联), or no longer.",
        ("intake",),
        ("intake", "notify"),
        LinkedSchema,
    ),
    EventType(
        "case.followed",
        "The case follows an older one from now on (并案), another one, or none any more.",
        ("escalation",),
        ("intake", "escalation", "notify"),
        FollowedSchema,
    ),
    EventType(
        "case.merged",
        "Others follow this case (并案): what becomes of it becomes of them; or no longer.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        MergedEventSchema,
    ),
    EventType(
        "case.led",
        "A case tells one that follows it that it ended, or follows another itself.",
        ("escalation",),
        ("intake", "escalation"),
        LedEventSchema,
    ),
    EventType(
        "case.lead_resolved",
        "The case that this one follows was resolved; its holder resolves it in the same way.",
        ("escalation",),
        ("intake", "dispatch", "notify"),
        LeadResolvedSchema,
    ),
)
