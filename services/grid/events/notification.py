"""What became of telling somebody."""

from __future__ import annotations

from marshmallow import fields

from services.grid.events.event_type import EventType
from services.grid.events.parts import WORD, Kept


class NotificationSchema(Kept):
    """A recipient is a reference (``officer:...``, ``desk:...``), never a name or number."""

    event = fields.String(required=True)
    about = fields.String(required=True)
    recipient = fields.String(required=True)
    channel = fields.String(required=True, validate=WORD)
    attempts = fields.Integer(required=True, strict=True)


class NotificationEventSchema(Kept):
    """``notification.delivered`` and ``notification.failed``."""

    notification = fields.Nested(NotificationSchema, required=True)
    reason = fields.String(load_default=None, allow_none=True)


TYPES = (
    EventType(
        "notification.delivered",
        "A recipient was told.",
        ("notify",),
        ("intake",),
        NotificationEventSchema,
    ),
    EventType(
        "notification.failed",
        "A recipient could not be told.",
        ("notify",),
        ("intake",),
        NotificationEventSchema,
    ),
)
