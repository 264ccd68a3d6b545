"""The directory on its travels: owned by intake, followed by every other service.

Each entry carries its ``version``; the greatest wins, so a republished directory changes
nothing.
"""

from __future__ import annotations

from marshmallow import fields, validate

from services.grid.calendars import OFF, WORK
from services.grid.events.event_type import EventType
from services.grid.events.parts import CODE, WORD, InstantField, Kept, public_text

_FOLLOWERS = ("dispatch", "escalation", "notify")


class EntrySchema(Kept):
    """What every entry of the directory has."""

    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    retired = fields.Boolean(load_default=False)


class DivisionSchema(Kept):
    """A unit of the tree of places (区划)."""

    code = fields.String(required=True, validate=CODE)
    name = fields.String(required=True, validate=validate.Length(1, 80))
    level = fields.String(required=True, validate=WORD)
    parent = fields.String(required=True, allow_none=True, validate=CODE)
    kind = fields.String(required=True, validate=WORD)


class UnitSchema(Kept):
    """A department, team or centre (单位)."""

    id = fields.String(required=True, validate=validate.Length(1, 80))
    name = fields.String(required=True, validate=validate.Length(1, 80))
    level = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)


class OfficerSchema(Kept):
    """Who serves a division at a level (网格员, 网格长). Contacts do not travel."""

    id = fields.String(required=True, validate=validate.Length(1, 80))
    name = fields.String(required=True, validate=validate.Length(1, 80))
    level = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)
    unit = fields.String(required=True, allow_none=True)
    role = fields.String(required=True, validate=validate.OneOf(["officer", "lead"]))
    on_duty = fields.Boolean(required=True)


class HolidaysSchema(Kept):
    """A year's statutory holidays (off) and make-up workdays (work, 调休), by date."""

    id = fields.String(required=True, validate=validate.Length(1, 80))
    name = fields.String(required=True, validate=WORD)
    year = fields.Integer(required=True, strict=True, validate=validate.Range(1, 9999))
    region = fields.String(required=True, validate=CODE)
    days = fields.Dict(
        required=True,
        keys=fields.String(validate=validate.Regexp(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")),
        values=fields.String(validate=validate.OneOf([OFF, WORK])),
    )


class EmergencySchema(Kept):
    """Whether a division, with all below it, is in emergency mode (战时机制), and since when.

    ``number`` counts how often it was switched on; cases name it ``<division>.<number>``.
    """

    division = fields.String(required=True, validate=CODE)
    number = fields.Integer(required=True, strict=True, validate=validate.Range(0, 1_000_000))
    on = fields.Boolean(required=True)
    since = InstantField(required=True)
    by = fields.String(required=True, validate=validate.Length(1, 200))
    reason = public_text(500, required=True, shortest=1)


class ProfileSchema(Kept):
    """A profile's rules as they stand in its YAML; the id is the hash of its content."""

    id = fields.String(required=True)
    name = fields.String(required=True, validate=WORD)
    region = fields.String(required=True, validate=CODE)
    rules = fields.Dict(required=True)


class DivisionEventSchema(EntrySchema):
    """``directory.division``."""

    division = fields.Nested(DivisionSchema, required=True)


class UnitEventSchema(EntrySchema):
    """``directory.unit``."""

    unit = fields.Nested(UnitSchema, required=True)


class OfficerEventSchema(EntrySchema):
    """``directory.officer``."""

    officer = fields.Nested(OfficerSchema, required=True)


class HolidaysEventSchema(EntrySchema):
    """``directory.holidays``."""

    holidays = fields.Nested(HolidaysSchema, required=True)


class EmergencyEventSchema(EntrySchema):
    """``directory.emergency``."""

    emergency = fields.Nested(EmergencySchema, required=True)


class ProfileEventSchema(EntrySchema):
    """``directory.profile``."""

    profile = fields.Nested(ProfileSchema, required=True)


class WantedSchema(Kept):
    """``directory.wanted``."""

    by = fields.String(required=True, validate=validate.Length(1, 80))


TYPES = (
    EventType(
        "directory.division",
        "A division as it now is.",
        ("intake",),
        _FOLLOWERS,
        DivisionEventSchema,
    ),
    EventType("directory.unit", "A unit as it now is.", ("intake",), _FOLLOWERS, UnitEventSchema),
    EventType(
        "directory.officer",
        "An officer as they now are.",
        ("intake",),
        _FOLLOWERS,
        OfficerEventSchema,
    ),
    EventType(
        "directory.holidays",
        "A year's statutory holidays, where an operator supplies them.",
        ("intake",),
        _FOLLOWERS,
        HolidaysEventSchema,
    ),
    EventType(
        "directory.emergency",
        "A division with all below it goes into emergency mode (战时机制), or back.",
        ("intake",),
        _FOLLOWERS,
        EmergencyEventSchema,
    ),
    EventType(
        "directory.profile",
        "A version of a profile; it never changes, it only stops being the current one.",
        ("intake",),
        _FOLLOWERS,
        ProfileEventSchema,
    ),
    EventType(
        "directory.wanted",
        "A service that comes late asks for the whole directory.",
        _FOLLOWERS,
        ("intake",),
        WantedSchema,
    ),
)
