"""What Open311 clients send, and what they are answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.bus.dialect import Commas
from services.bus.openapi import Shown
from services.grid.clock import Instant
from services.grid.events.parts import (
    CODE,
    WORD,
    InstantField,
    no_personal_number,
    plain,
    plain_lines,
    public_text,
    readable,
)

MOST = 1000
"""Requests in an answer, as the specification has it."""
DAYS = 90
"""The days that a query may span."""
OPEN, CLOSED = "open", "closed"

_MOST_IDS = 200
# So far a page may be: what lies before it is read, too.
_FARTHEST = 10_000
_ID: list[Any] = [validate.Length(1, 80), plain]
_YEARS = ("1970", "2999")
_PLUS_LOST = re.compile(r" (\d{2}:\d{2})\Z")
_WORDS = "^[A-Za-z][A-Za-z_]{0,39}$"


class Time(InstantField):
    """A W3C time with a zone."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Instant:
        # A plus that was not percent-encoded arrives as a space.
        mended = _PLUS_LOST.sub(r"+\1", value) if isinstance(value, str) else value
        at = super()._deserialize(mended, attr, data, **kwargs)
        if not _YEARS[0] <= at[:4] <= _YEARS[1]:
            raise ValidationError(f"Write a year from {_YEARS[0]} to {_YEARS[1]}.")
        return at


def _lines(value: Any) -> Any:
    """Forms send line breaks as CR LF."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


class Text(fields.String):
    """Text of several lines."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        return super()._deserialize(_lines(value), attr, data, **kwargs)


def _key() -> fields.String:
    """The key is taken out before; here it is for the documents."""
    return fields.String(
        load_default=None,
        validate=validate.Length(max=200),
        metadata={"description": "an API key, if it is not in the head (`Authorization: Bearer`)"},
    )


class JurisdictionQuery(Schema):
    """What every request takes."""

    example: ClassVar[dict[str, Any]] = {"jurisdiction_id": "469002"}

    jurisdiction_id = fields.String(
        load_default=None,
        validate=CODE,
        metadata={"description": "a profile's region; needed where there are several"},
    )


class KeyedQuery(JurisdictionQuery):
    """A query that shows one's own, with a key."""

    api_key = _key()


class PeriodQuery(KeyedQuery):
    """A query of a time, 90 days at most: the last ones, if nothing is said."""

    start_date = Time(load_default=None)
    end_date = Time(load_default=None, metadata={"description": "it counts, too"})
    page = fields.Integer(load_default=1, validate=validate.Range(1, _FARTHEST))
    page_size = fields.Integer(load_default=MOST, validate=validate.Range(1, MOST))

    @validates_schema
    def _near(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["page"] * data["page_size"] > _FARTHEST:
            raise ValidationError(
                f"Only the first {_FARTHEST} can be looked through: ask for fewer days.", "page"
            )


class RequestsQuery(PeriodQuery):
    """Filters of ``GET /open311/v2/requests``; ``service_request_id`` overrides all others."""

    example: ClassVar[dict[str, Any]] = {
        "service_code": "facility",
        "status": "closed",
        "start_date": "2026-03-01T00:00:00+08:00",
        "end_date": "2026-04-01T00:00:00+08:00",
        "page": 1,
        "page_size": 20,
    }

    service_request_id = Commas(most=_MOST_IDS, load_default=None)
    service_code = Commas(most=_MOST_IDS, load_default=None)
    status = Commas(most=2, load_default=None, metadata={"description": "open, closed, or both"})

    @validates_schema
    def _known_status(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["status"] and not {OPEN, CLOSED} >= set(data["status"]):
            raise ValidationError("Write open, closed, or open,closed.", "status")


class UpdatesQuery(PeriodQuery):
    """Query of ``GET /open311/v2/servicerequestupdates``."""

    example: ClassVar[dict[str, Any]] = {
        "start_date": "2026-03-01T00:00:00+08:00",
        "end_date": "2026-03-02T00:00:00+08:00",
    }


class PersonBody(Schema):
    """Who reports, and the key."""

    api_key = _key()
    jurisdiction_id = fields.String(load_default=None, validate=CODE)
    email = fields.String()
    device_id = fields.String()
    account_id = fields.String()
    first_name = fields.String(validate=[validate.Length(1, 40), plain])
    last_name = fields.String(validate=[validate.Length(1, 40), plain])
    phone = fields.String()
    media_url = fields.List(
        fields.Url(
            schemes={"http", "https"}, require_tld=False, validate=validate.Length(max=2000)
        ),
        load_default=list,
        validate=validate.Length(max=20),
        metadata={"description": "may be sent several times"},
    )


class RequestBody(PersonBody):
    """The form of ``POST /open311/v2/requests``.

    Where: ``lat`` and ``long``, ``address_string`` (a place name) or ``address_id`` (a division
    code).
    """

    example: ClassVar[dict[str, Any]] = {
        "service_code": "facility",
        "address_id": "46900210421403007",
        "address_string": "沙美村3组7户",
        "lat": 19.1502,
        "long": 110.5823,
        "description": "东侧第三盏路灯不亮, 已有三天。",
        "first_name": "某",
        "last_name": "林",
        "phone": "0898 6282 1234",
        "media_url": ["https://files.example.cn/lamp.jpg"],
        "attribute[title]": "文化广场路灯不亮",
        "attribute[urgency]": "ordinary",
    }

    service_code = fields.String(required=True, validate=_ID)
    lat = fields.Float(validate=validate.Range(-90, 90))
    long = fields.Float(validate=validate.Range(-180, 180))
    address_string = fields.String(load_default=None, validate=[validate.Length(1, 200), plain])
    address_id = fields.String(load_default=None, validate=CODE)
    description = Text(load_default="", validate=[validate.Length(max=4000), plain_lines])
    title = public_text(200, shortest=1, data_key="attribute[title]")
    urgency = fields.String(data_key="attribute[urgency]", validate=WORD)
    source = fields.String(data_key="attribute[source]", validate=WORD)
    occurred_at = Time(data_key="attribute[occurred_at]", load_default=None)

    @validates_schema
    def _says_where(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if ("lat" in data) != ("long" in data):
            missing = "long" if "lat" in data else "lat"
            raise ValidationError("Send lat and long, both of them.", missing)
        if "lat" not in data and data["address_string"] is None and data["address_id"] is None:
            raise ValidationError(
                "Say where: lat and long, address_string (a place name), or address_id "
                "(a division code).",
                "address_string",
            )


class UpdateBody(PersonBody):
    """The form of ``POST /open311/v2/servicerequestupdates`` (FixMyStreet's extension).

    What it says of a person is not kept: who reported the case is known already.
    """

    example: ClassVar[dict[str, Any]] = {
        "service_request_id": "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e",
        "update_id": "1201",
        "status": "OPEN",
        "updated_datetime": "2026-03-03T08:12:00+08:00",
        "description": "西侧第一盏也不亮。",
    }

    service_request_id = fields.String(required=True, validate=_ID)
    update_id = fields.String(
        required=True, validate=_ID, metadata={"description": "the sender's: again it is the same"}
    )
    status = fields.String(
        load_default="OPEN",
        validate=validate.Regexp(_WORDS, error="Write a status, such as OPEN."),
        metadata={"description": "what the sender calls it; the case's own does not change by it"},
    )
    updated_datetime = Time(load_default=None)
    description = Text(
        required=True,
        validate=[validate.Length(1, 1500), plain_lines, no_personal_number, readable],
    )
    service_code = fields.String(validate=_ID)
    service_request_id_ext = fields.String(validate=_ID)
    title = fields.String(validate=_ID)
    public_anonymity_required = fields.String(validate=_ID)
    email_alerts_requested = fields.String(validate=_ID)


class EndpointShown(Shown):
    """An endpoint."""

    specification = fields.String()
    url = fields.String()
    changeset = fields.String()
    type = fields.String()
    formats = fields.List(fields.String())


class DiscoveryShown(Shown):
    """Where what is spoken."""

    changeset = fields.String()
    contact = fields.String()
    key_service = fields.String()
    endpoints = fields.List(fields.Nested(EndpointShown))


class ServiceShown(Shown):
    """A service: a category of the profile."""

    service_code = fields.String()
    service_name = fields.String()
    description = fields.String()
    metadata = fields.Boolean()
    type = fields.String(validate=validate.OneOf(["realtime"]))
    keywords = fields.String()
    group = fields.String()


class ValueShown(Shown):
    """A word that an attribute may have."""

    key = fields.String()
    name = fields.String()


class AttributeShown(Shown):
    """What a request may say besides, as ``attribute[code]``."""

    variable = fields.Boolean()
    code = fields.String()
    datatype = fields.String()
    required = fields.Boolean()
    datatype_description = fields.String()
    order = fields.Integer()
    description = fields.String()
    values = fields.List(fields.Nested(ValueShown))


class DefinitionShown(Shown):
    """What a service can be told."""

    service_code = fields.String()
    attributes = fields.List(fields.Nested(AttributeShown))


class CreatedShown(Shown):
    """A request that was taken."""

    service_request_id = fields.String()
    service_notice = fields.String(
        metadata={"description": "with the tracking code, for the reporter and nobody else"}
    )
    account_id = fields.String(allow_none=True)


class TokenShown(Shown):
    """The request of a token."""

    service_request_id = fields.String()
    token = fields.String()


class RequestShown(Shown):
    """A request: one's own whole, another's as far as the county opens it."""

    service_request_id = fields.String()
    status = fields.String(validate=validate.OneOf([OPEN, CLOSED]))
    status_notes = fields.String()
    service_name = fields.String()
    service_code = fields.String()
    description = fields.String(allow_none=True)
    agency_responsible = fields.String(allow_none=True)
    service_notice = fields.String(allow_none=True)
    requested_datetime = fields.String(metadata={"description": "of another's just the day"})
    updated_datetime = fields.String()
    expected_datetime = fields.String(allow_none=True)
    address = fields.String(metadata={"description": "of another's the village"})
    address_id = fields.String()
    zipcode = fields.String(allow_none=True)
    lat = fields.Float(allow_none=True)
    long = fields.Float(allow_none=True)
    media_url = fields.String(allow_none=True)


class UpdateShown(Shown):
    """Something that happened to a request."""

    update_id = fields.String()
    service_request_id = fields.String()
    status = fields.String(validate=validate.OneOf([OPEN, CLOSED]))
    updated_datetime = fields.String()
    description = fields.String()
    media_url = fields.String(allow_none=True)


class UpdateCreated(Shown):
    """An update that was taken."""

    update_id = fields.String()
