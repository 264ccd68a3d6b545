"""How a round of a case ends, and what who reported it thinks of that; all said by intake."""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.events.event_type import EventType
from services.grid.events.parts import CaseSchema, InstantField, Kept, public_text


class FeedbackSchema(Kept):
    """What the reporter says of how the round was resolved (回访); ``score`` 5 is the best.

    The reporter's own words stay in the register, like the description of the case.
    """

    satisfied = fields.Boolean(required=True)
    score = fields.Integer(
        strict=True, load_default=None, allow_none=True, validate=validate.Range(1, 5)
    )
    by = fields.String(required=True)
    at = InstantField(required=True)


class FeedbackGivenSchema(CaseSchema):
    """``case.feedback_given``; its state is the one that the feedback is about."""

    feedback = fields.Nested(FeedbackSchema, required=True)


class ClosingSchema(Kept):
    """Why a case is closed: ``confirmed`` by feedback, or ``unanswered`` until ``due``."""

    why = fields.String(required=True, validate=validate.OneOf(["confirmed", "unanswered"]))
    due = InstantField(load_default=None, allow_none=True)


class ClosedSchema(CaseSchema):
    """``case.closed``."""

    closing = fields.Nested(ClosingSchema, required=True)


class WithdrawalSchema(Kept):
    """Who takes a report back, and why."""

    by = fields.String(required=True)
    reason = public_text(500, required=True, shortest=1)


class WithdrawnSchema(CaseSchema):
    """``case.withdrawn``."""

    withdrawal = fields.Nested(WithdrawalSchema, required=True)


TYPES = (
    EventType(
        "case.feedback_given",
        "Who reported the case says whether they are satisfied (回访).",
        ("intake",),
        ("intake", "notify"),
        FeedbackGivenSchema,
        about=("resolution",),
    ),
    EventType(
        "case.closed",
        "A resolved case is closed (销号): it was confirmed, or nobody answered in time.",
        ("intake",),
        ("intake", "dispatch", "escalation", "notify"),
        ClosedSchema,
        about=("resolution",),
    ),
    EventType(
        "case.withdrawn",
        "The report was taken back (撤回) before the case was resolved.",
        ("intake",),
        ("intake", "escalation", "notify"),
        WithdrawnSchema,
    ),
)
