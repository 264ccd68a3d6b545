"""The directory on its travels: owned by intake, followed by every other service.

Each entry carries its ``version``; the greatest wins, so a republished directory changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import ValidationError, fields, validate

from services.grid.calendars import OFF, WEEK, WORK, read_hours
from services.grid.duty import read_weeks
from services.grid.events.event_type import EventType
from services.grid.events.parts import CODE, WORD, InstantField, Kept, Number, public_text
from services.grid.points import FARTHEST_KM

_FOLLOWERS = ("dispatch", "escalation", "notify")


class EntrySchema(Kept):
    """What every entry of the directory has."""

    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1))
    retired = fields.Boolean(load_default=False)


class PointSchema(Kept):
    """Where a division is on the map: WGS 84, degrees; ``reach`` in km."""

    lat = Number(required=True, validate=validate.Range(-90, 90))
    long = Number(required=True, validate=validate.Range(-180, 180))
    reach = Number(required=True, validate=validate.Range(0, FARTHEST_KM))


class DivisionSchema(Kept):
    """A unit of the tree of places (区划); ``location`` if it has a point on the map."""

    code = fields.String(required=True, validate=CODE)
    name = fields.String(required=True, validate=validate.Length(1, 80))
    level = fields.String(required=True, validate=WORD)
    parent = fields.String(required=True, allow_none=True, validate=CODE)
    kind = fields.String(required=True, validate=WORD)
    location = fields.Nested(PointSchema)


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


def _readable(parse: Callable[[str], Any], said: str) -> Callable[[str], None]:
    """A validator: ``parse`` reads it, or what is said instead."""

    def check(text: str) -> None:
        try:
            unread = parse(text) is None
        except (LookupError, ValueError, OSError):
            unread = True
        if unread:
            raise ValidationError(said)

    return check


DAY = _readable(date.fromisoformat, "Write a date such as 2027-01-01.")
HOURS = _readable(read_hours, "Write hours such as 08:00-18:00, or 18:00-08:00.")
WEEKS = _readable(read_weeks, "Write which week of how many, such as 1/2.")


class StretchSchema(Kept):
    """Hours that begin on days of the week, from a first to a last day.

    Hours that end no later than they begin go on to the next day. ``weeks``: ``1/2`` is the first
    of every two weeks, counted from the week of the first day, which is there then.
    """

    days = fields.List(fields.String(validate=validate.OneOf(WEEK)), required=True)
    hours = fields.String(required=True, validate=HOURS)
    first = fields.String(required=True, allow_none=True, validate=DAY)
    last = fields.String(required=True, allow_none=True, validate=DAY)
    weeks = fields.String(required=True, allow_none=True, validate=WEEKS)
    deputy = fields.String(
        allow_none=True, metadata={"description": "who takes over during this leave"}
    )


class DutySchema(Kept):
    """An officer's duty (值班): the week's rota, leaves, stand-ins, and who takes over."""

    officer = fields.String(required=True, validate=validate.Length(1, 80))
    division = fields.String(required=True, validate=CODE)
    timezone = fields.String(
        required=True, validate=_readable(ZoneInfo, "Write a zone such as Asia/Shanghai.")
    )
    shifts = fields.List(fields.Nested(StretchSchema), required=True)
    leaves = fields.List(fields.Nested(StretchSchema), required=True)
    stand_ins = fields.List(fields.Nested(StretchSchema), required=True)
    deputy = fields.String(required=True, allow_none=True)


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


class DutyEventSchema(EntrySchema):
    """``directory.duty``."""

    duty = fields.Nested(DutySchema, required=True)


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
        "directory.duty",
        "An officer's rota, leaves and stand-ins (值班) as they now are.",
        ("intake",),
        _FOLLOWERS,
        DutyEventSchema,
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
        addressed=False,
    ),
)
