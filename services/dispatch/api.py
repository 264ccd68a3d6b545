"""A desk over HTTP: its docket, and what its officers do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar

from marshmallow import Schema, fields, validate

from services.bus import problems, relay
from services.bus.desk_acts import DeskAct
from services.bus.errors import Refused, Retry
from services.bus.fold import Decision, Document, Record, Work
from services.bus.openapi import Shown
from services.bus.paging import Cursor, PageQuery
from services.bus.problems import Problem
from services.bus.rpc import Caller
from services.bus.shell import Shell
from services.bus.versions import on_what_was_seen, tagged
from services.bus.web import Answer, Call
from services.dispatch import calls, model
from services.dispatch.store import Docket
from services.grid import deadlines, json, whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant, monotonic, plus
from services.grid.directory import ROLES, OnDuty
from services.grid.events.case import AnswerSchema, ExtensionSchema, NoteSchema, RequestSchema
from services.grid.events.parts import (
    CODE,
    WORD,
    AcknowledgedSchema,
    AddressSchema,
    AssignedSchema,
    AuthoritySchema,
    CallReleaseSchema,
    CallSchema,
    ClocksSchema,
    DeadlineSchema,
    DoneSchema,
    Flag,
    GrantedSchema,
    InstantField,
    ProgressSchema,
    ResolutionSchema,
    SuspensionSchema,
    TokenSchema,
    attachments,
    public_text,
)
from services.grid.moving import WrongPlace
from services.grid.problems import not_among
from services.grid.profile import Profile, profile_at
from services.grid.roster import roster
from services.grid.scope import Scope
from services.grid.tokens import Address
from services.grid.whistles import MOST

Desk = Shell[Docket]
T = TypeVar("T")

READERS = ("officer", "lead", "operator", "auditor")
GRANTERS = ("lead", "operator")
MOVED_ON = {409: "The case has moved on (`held_by` has it now), or this is not possible in it."}
ASKED = {409: "The custodian refused it (`why`), or the case has moved on: `held_by` has it now."}
CALL_ANSWERED = {409: "Another officer said so already, or the unit may leave."}
ANSWERED = {409: "It was answered otherwise already, or the same person asked for it."}

ANSWER_SECONDS = 5.0
"""Real seconds for which a desk waits for the custodian's answer before it says 202."""
_PICTURE = {
    "url": "https://files.example.org/lamp.jpg",
    "sha256": "0f" * 32,
    "name": "路灯.jpg",
}
_REFUSALS = {
    "too_late": "the case had moved on, or ended, before",
    "last_level": "there is no level above",
    "nobody_sent_it": "nobody sent it here",
    "returned_too_often": "it was sent back as often as its profile lets it be",
    "no_authority": "this level may not give its authority to settle such a case",
    "no_such_place": "the custodian knows no such place, or it is no longer on the ladder",
}
_RATES_SECONDS = 30 * 86400.0
_SOONER = {"description": "a time such as 30m; by default, and at most, the profile's"}
_REACHABLE = validate.Range(
    Instant("2000-01-01T00:00:00.000Z"),
    Instant("2200-01-01T00:00:00.000Z"),
    error="Write a time from 2000 to 2199.",
)


class DocketQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/cases``."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104", "status": "live", "limit": 20}

    division = fields.String(validate=CODE)
    unit = fields.String(validate=validate.Length(1, 80))
    status = fields.String(validate=validate.OneOf(["live", "ended"]))


class DutyQuery(PageQuery):
    """Query of ``GET /v1/desks/{level}/duty``: of a division with all below it, or what it is in.

    ``at`` is a time other than now.
    """

    example: ClassVar[dict[str, Any]] = {
        "division": "469002104214",
        "at": "2026-10-01T09:00:00+08:00",
    }

    division = fields.String(required=True, validate=CODE)
    at = InstantField(load_default=None, validate=_REACHABLE)


class RatesQuery(Schema):
    """Query of ``GET /v1/desks/{level}/rates``: arrivals ``from`` a time to before another.

    Without them, the last thirty days.
    """

    example: ClassVar[dict[str, Any]] = {
        "division": "469002104",
        "from": "2026-11-01T00:00:00+08:00",
        "to": "2026-12-01T00:00:00+08:00",
    }

    division = fields.String(load_default=None, validate=CODE)
    unit = fields.String(load_default=None, validate=validate.Length(1, 80))
    since = InstantField(load_default=None, data_key="from", validate=_REACHABLE)
    until = InstantField(load_default=None, data_key="to", validate=_REACHABLE)


class AnswerBody(Schema):
    """Body of ``POST /v1/desks/{level}/extensions/{id}/grant`` and ``…/refuse``."""

    example: ClassVar[dict[str, Any]] = {"note": "同意"}

    note = public_text(2000, lines=True, load_default="")
    attachments = attachments("raise", load_default=list)


class ActBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/acknowledge`` (接单) and ``…/resume`` (恢复)."""

    example: ClassVar[dict[str, Any]] = {"note": "马上去看"}

    note = public_text(2000, lines=True, load_default="")
    attachments = attachments("raise", load_default=list)


class NoteBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/note`` (进展)."""

    example: ClassVar[dict[str, Any]] = {"note": "已到现场, 灯杆漏电。", "attachments": [_PICTURE]}

    note = public_text(2000, lines=True, required=True, shortest=1)
    step = fields.String(
        load_default=None,
        allow_none=True,
        validate=WORD,
        metadata={"description": "the step of the entry's procedure that was done with it"},
    )
    attachments = attachments("raise", load_default=list)


class ResolveBody(ActBody):
    """Body of ``POST /v1/desks/{level}/cases/{id}/resolve`` (办结)."""

    example: ClassVar[dict[str, Any]] = {"outcome": "settled", "note": "已更换灯泡"}

    outcome = fields.String(
        required=True, validate=WORD, metadata={"description": "one of the profile's"}
    )
    scores = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 80)),
        values=fields.Integer(strict=True, validate=validate.Range(1, 5)),
        load_default=dict,
        validate=validate.Length(max=MOST),
        metadata={"description": "how units did that were called and are still there, by their id"},
    )


class SuspendBody(ActBody):
    """Body of ``POST /v1/desks/{level}/cases/{id}/suspend`` (挂起)."""

    example: ClassVar[dict[str, Any]] = {
        "reason": "waiting_for_papers",
        "longest": "2d",
        "note": "等产权证明",
    }

    reason = fields.String(
        required=True, validate=WORD, metadata={"description": "one of the profile's"}
    )
    longest = fields.String(
        load_default=None,
        validate=validate.Length(1, 40),
        metadata={"description": "a duration such as 2d; by default, and at most, the profile's"},
    )


class UnitSchema(Schema):
    """A unit, by its id; or by its name, and if need be by the place where it is."""

    unit = fields.String(required=True, validate=validate.Length(1, 80))
    level = fields.String(validate=WORD)
    division = fields.String(validate=CODE)


class WhistleBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/whistle`` (吹哨)."""

    example: ClassVar[dict[str, Any]] = {
        "units": [{"unit": "469002104-enforcement"}, {"unit": "469002104-market"}],
        "lead": "469002104-enforcement",
        "check_in": "30m",
        "finish": "1d",
        "reason": "占道经营, 需要联合执法",
    }

    units = fields.List(fields.Nested(UnitSchema), required=True, validate=validate.Length(1, MOST))
    lead = fields.String(
        load_default=None,
        validate=validate.Length(1, 80),
        metadata={"description": "which of them leads, as it is written in units"},
    )
    check_in = fields.String(load_default=None, validate=validate.Length(1, 40), metadata=_SOONER)
    finish = fields.String(load_default=None, validate=validate.Length(1, 40), metadata=_SOONER)
    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class ReleaseBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/release``: the unit may leave (评价)."""

    example: ClassVar[dict[str, Any]] = {
        "unit": "469002104-market",
        "score": 4,
        "note": "来得快, 处理得当",
    }

    unit = fields.String(required=True, validate=validate.Length(1, 80))
    score = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(1, 5),
        metadata={"description": "5 is the best; only a unit that never came may go without"},
    )
    note = public_text(500, load_default="")
    attachments = attachments("raise", load_default=list)


class CallBody(ActBody):
    """Body of ``POST /v1/desks/{level}/calls/{id}/check-in`` (报到) and ``…/finish``."""

    example: ClassVar[dict[str, Any]] = {"note": "两名执法队员已到现场"}

    # The holder is told what all units said at once: twenty, each twice.
    note = public_text(500, lines=True, load_default="")


class CallsQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/calls``."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104", "status": "called", "limit": 20}

    division = fields.String(validate=CODE)
    unit = fields.String(validate=validate.Length(1, 80))
    status = fields.String(validate=validate.OneOf(calls.STATUSES))


class RequestBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/escalate`` (提级) and ``…/return`` (退回)."""

    example: ClassVar[dict[str, Any]] = {"reason": "需要电工"}

    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class ToSchema(Schema):
    """Where to: a unit, by its id or its name there, says the rest; a division says its level."""

    level = fields.String(validate=WORD, allow_none=True)
    division = fields.String(validate=CODE, allow_none=True)
    unit = fields.String(validate=validate.Length(1, 80), allow_none=True)


class MoveBody(RequestBody):
    """Body of ``POST /v1/desks/{level}/cases/{id}/transfer`` (转办)."""

    example: ClassVar[dict[str, Any]] = {
        "reason": "就近处理",
        "to": {"division": "469002104205"},
    }

    to = fields.Nested(ToSchema, required=True)


class DelegateBody(MoveBody):
    """Body of ``POST /v1/desks/{level}/cases/{id}/delegate`` (下派)."""

    example: ClassVar[dict[str, Any]] = {
        "reason": "由村里协调",
        "to": {"division": "469002104205"},
        "authorise": True,
    }

    authorise = Flag(
        load_default=False,
        metadata={"description": "with this level's authority to settle it (授权)"},
    )


class ExtendBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/extend`` (延期)."""

    example: ClassVar[dict[str, Any]] = {
        "by": "2d",
        "reason": "配件还在路上",
        "attachments": [_PICTURE],
    }

    by = fields.String(
        required=True,
        validate=validate.Length(1, 40),
        metadata={"description": "how much more, such as 2d or 3 working days"},
    )
    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class ExtensionsQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/extensions``."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104", "status": "asked", "limit": 20}

    division = fields.String(validate=CODE)
    status = fields.String(validate=validate.OneOf(["asked", "granted", "refused"]))


class OwnExtension(Shown, ExtensionSchema):
    """What more time the desk has asked for last, and what became of it."""

    sometimes = ("attachments", "granted_by")

    answer = fields.String(
        allow_none=True, validate=validate.OneOf(["granted", "refused", "applied"])
    )
    granted_by = fields.String(metadata={"description": "who answered"})


class OwnRequest(Shown, RequestSchema):
    """The change of custody that the desk has asked for last, and what the custodian said."""

    sometimes = ("attachments", "authorise", "why", "held_by")

    at = InstantField()
    answer = fields.String(allow_none=True, validate=validate.OneOf(["granted", "refused"]))
    why = fields.String(metadata={"description": "why it was refused"})
    held_by = fields.Nested(AddressSchema, metadata={"description": "who held the case then"})


class RefusedRequest(Shown):
    """What the custodian refused last of what the desk asked for."""

    request = fields.Nested(RequestSchema)
    why = fields.String()


class Joined(Shown, CallSchema, ProgressSchema):
    """A unit that was called to the case, and what it did."""


class StepShown(Shown):
    """A step of a procedure; who did it and when, or null."""

    id = fields.String()
    title = fields.String()
    done = fields.Nested(AcknowledgedSchema, allow_none=True)


class ProcedureShown(Shown):
    """What must be done here before the case may be resolved (四议两公开)."""

    rule = fields.String()
    title = fields.Dict(keys=fields.String(), values=fields.String())
    source = fields.String()
    steps = fields.List(fields.Nested(StepShown))


class EntryShown(Shown):
    """A docket entry: one time that a case came to this desk."""

    id = fields.String(metadata={"description": "the case's"})
    tracking = fields.String()
    title = fields.String()
    category = fields.String()
    urgency = fields.String()
    division = fields.String()
    triage = fields.Boolean()
    emergency = fields.String(allow_none=True)
    reported_at = InstantField()
    round = fields.Integer()
    hop = fields.Integer()
    arrived_at = InstantField()
    token = fields.Nested(TokenSchema)
    address = fields.Nested(AddressSchema)
    assigned = fields.Nested(AssignedSchema, allow_none=True)
    acknowledged = fields.Nested(AcknowledgedSchema, allow_none=True)
    clocks = fields.Nested(ClocksSchema)
    deadlines = fields.List(fields.Nested(DeadlineSchema))
    resolution = fields.Nested(ResolutionSchema, allow_none=True)
    suspension = fields.Nested(SuspensionSchema, allow_none=True)
    extensions = fields.List(fields.Nested(GrantedSchema))
    extension = fields.Nested(OwnExtension, allow_none=True)
    procedure = fields.Nested(ProcedureShown, allow_none=True)
    authority = fields.Nested(AuthoritySchema, allow_none=True)
    request = fields.Nested(OwnRequest, allow_none=True)
    notes = fields.List(fields.Nested(NoteSchema), metadata={"description": "the last of them"})
    joined = fields.List(
        fields.Nested(Joined), metadata={"description": "the units called in this round (吹哨报到)"}
    )
    status = fields.String(validate=validate.OneOf(["live", "ended"]))
    ended = fields.String(
        allow_none=True, validate=validate.OneOf(["resolved", "custody", "resolution"])
    )
    held_by = fields.Nested(AddressSchema, allow_none=True)
    refused = fields.Nested(RefusedRequest, allow_none=True)
    passed = fields.List(
        fields.String(), metadata={"description": "the kinds of deadlines that passed here"}
    )
    follows = fields.String(
        allow_none=True, metadata={"description": "the older case that it was merged into (并案)"}
    )
    followers = fields.List(
        fields.String(), metadata={"description": "the cases that follow this one"}
    )


class EntriesPage(Shown):
    """A page of the docket."""

    cases = fields.List(fields.Nested(EntryShown))
    next = fields.String(allow_none=True)


class OnDutyShown(Shown):
    """Who is on duty, and for whom, if that officer is on leave."""

    id = fields.String()
    name = fields.String()
    role = fields.String(validate=validate.OneOf(ROLES))
    instead_of = fields.String(allow_none=True)


class PlaceShown(Shown):
    """Who answers at a division or a unit, and from when on it is who."""

    division = fields.String()
    name = fields.String()
    unit = fields.String(allow_none=True)
    unit_name = fields.String(allow_none=True)
    emergency = fields.String(allow_none=True)
    officers = fields.List(fields.Nested(OnDutyShown))
    why = fields.String(metadata={"description": "on duty, deputy, command or nobody on duty"})
    until = InstantField(allow_none=True)
    then = fields.List(fields.Nested(OnDutyShown))
    then_why = fields.String(allow_none=True)


class DutyPage(Shown):
    """A page of who is on duty."""

    level = fields.String()
    at = InstantField()
    places = fields.List(fields.Nested(PlaceShown))
    next = fields.String(allow_none=True)


class RateCounts(Shown):
    """How many of what arrived."""

    arrived = fields.Integer()
    acknowledged = fields.Integer(metadata={"description": "accepted or settled here"})
    completed = fields.Integer(metadata={"description": "settled here"})
    on_time = fields.Integer(metadata={"description": "settled here before that was due"})
    overdue = fields.Integer(metadata={"description": "where any deadline passed here"})
    due = fields.Integer(metadata={"description": "completed or overdue"})


class RateRatios(Shown):
    """From 0 to 1, null of nothing."""

    response = fields.Float(allow_none=True, metadata={"description": "响应率, of what arrived"})
    completion = fields.Float(allow_none=True, metadata={"description": "办结率, of what arrived"})
    on_time = fields.Float(allow_none=True, metadata={"description": "按期办结率, of what was due"})
    overdue = fields.Float(allow_none=True, metadata={"description": "超时率, of what arrived"})


class CallCounts(Shown):
    """How many of the calls of units."""

    called = fields.Integer()
    checked_in = fields.Integer()
    checked_in_on_time = fields.Integer()
    checked_in_due = fields.Integer(metadata={"description": "came, or the time passed"})
    finished = fields.Integer()
    finished_on_time = fields.Integer()
    finished_due = fields.Integer(metadata={"description": "done, or the time passed"})
    scored = fields.Integer()


class CallRatios(Shown):
    """From 0 to 1, and the mean score; null of nothing."""

    check_in = fields.Float(
        allow_none=True, metadata={"description": "按期报到率, of what was due"}
    )
    finish = fields.Float(allow_none=True, metadata={"description": "按期完成率, of what was due"})
    score = fields.Float(allow_none=True, metadata={"description": "评价, 1 to 5, the mean"})


class CallRates(Shown):
    """What units made of calls (吹哨报到)."""

    counts = fields.Nested(CallCounts)
    rates = fields.Nested(CallRatios)


class RatesShown(Shown):
    """What became of what arrived."""

    level = fields.String()
    division = fields.String(allow_none=True)
    unit = fields.String(allow_none=True)
    since = InstantField(data_key="from")
    until = InstantField(data_key="to")
    counts = fields.Nested(RateCounts)
    rates = fields.Nested(RateRatios)
    calls = fields.Nested(CallRates)


class CallEndedShown(Shown):
    """That the unit may leave, and how the holder scored it."""

    why = fields.String(validate=validate.OneOf(["released", "ended"]))
    at = InstantField()
    released = fields.Nested(CallReleaseSchema, allow_none=True)


class CallShown(Shown):
    """What a unit of this level is called to."""

    id = fields.String(metadata={"description": "the call's"})
    case = fields.String()
    tracking = fields.String()
    title = fields.String()
    category = fields.String()
    urgency = fields.String()
    division = fields.String(metadata={"description": "the case's"})
    called_by = fields.Nested(AddressSchema)
    by = fields.String()
    at = InstantField()
    reason = fields.String()
    address = fields.Nested(AddressSchema, metadata={"description": "the unit's"})
    lead = fields.Boolean()
    check_in = fields.Nested(DeadlineSchema)
    finish = fields.Nested(DeadlineSchema)
    checked_in = fields.Nested(DoneSchema, allow_none=True)
    finished = fields.Nested(DoneSchema, allow_none=True)
    ended = fields.Nested(CallEndedShown, allow_none=True)
    status = fields.String(validate=validate.OneOf(calls.STATUSES))


class CallsPage(Shown):
    """A page of what the units of this level are called to."""

    calls = fields.List(fields.Nested(CallShown))
    next = fields.String(allow_none=True)


class ExtensionShown(Shown, ExtensionSchema):
    """What the level below asks for."""

    sometimes = ("attachments",)

    case = fields.String()
    tracking = fields.String()
    title = fields.String()
    urgency = fields.String()
    held_by = fields.Nested(AddressSchema)
    due = InstantField(allow_none=True)
    status = fields.String(validate=validate.OneOf(["asked", "granted", "refused"]))
    answer = fields.Nested(AnswerSchema, allow_none=True)


class ExtensionsPage(Shown):
    """A page of what the level below asks for."""

    extensions = fields.List(fields.Nested(ExtensionShown))
    next = fields.String(allow_none=True)


def entries(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """A page of the docket, the latest arrival first."""
    part, query = _part(desk, call, level), call.query
    records, cursor = desk.store.entries(part, query.get("status"), query["cursor"], query["limit"])
    found = [shown(record.document or {}) for record in records]
    # A page of whole entries could be very long.
    return {"cases": [{**item, "notes": item["notes"][-1:]} for item in found], "next": cursor}


def entry(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """The entry of the last time that a case came to the caller's part of this desk, tagged."""
    found = _arrived(_latest(desk, call, _of_case(desk, level, case)))
    _must_reach(desk, call, found)
    return tagged(shown(found))


def duty(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """Who is on duty (值班), until when, and who is next; a division before its units."""
    _serves(desk, level)
    query, atlas = call.query, desk.county.atlas()
    directory, division, at = atlas.directory, query["division"], query["at"] or desk.now
    wrong = directory.check_code(division)
    if wrong is not None:
        raise problems.invalid({"division": wrong})
    place = directory.ancestor(division, level)
    root = place.code if place is not None else division
    places = directory.desk_places(level, root)
    if place is not None:
        # A place that has no officers at all is shown too: somebody may stand in.
        places = [item for item in places if item[0] == root] or [(root, None)]
    if atlas.current:
        led = [item for item in places if profile_at(atlas.current, level, item[0], directory)]
        if places and not led:
            said = f"no profile's ladder leads to the {level} of {division}: write another division"
            raise problems.invalid({"division": said})
        places = led
    cursor: Cursor | None = query["cursor"]
    if cursor is not None:
        after = (cursor.value, cursor.key)
        places = [item for item in places if (item[0], item[1] or "") > after]
    page = places[: query["limit"]]
    following = Cursor(page[-1][0], page[-1][1] or "").text() if len(places) > len(page) else None
    shown = [_place_shown(Address(level, *item), atlas, at) for item in page]
    return {"level": level, "at": at, "places": shown, "next": following}


def _place_shown(address: Address, atlas: Atlas, at: Instant) -> dict[str, Any]:
    directory, unit = atlas.directory, atlas.directory.units.get(address.unit or "")
    profile = profile_at(atlas.current, address.level, address.division, directory)
    if profile is None:
        raise Retry("the profile of this place has not arrived yet")
    emergency = atlas.emergency_at(profile, address.division)
    if emergency is not None:
        profile = profile.in_emergency or profile
    found = roster(profile, address, directory, at)
    return {
        "division": address.division,
        "name": directory.name(address.division),
        "unit": address.unit,
        "unit_name": unit and unit.name,
        "emergency": emergency,
        "officers": [_officer_shown(item) for item in found.officers],
        "why": found.why,
        "until": found.until,
        "then": [_officer_shown(item) for item in found.then],
        "then_why": found.then_why,
    }


def _officer_shown(found: OnDuty) -> dict[str, Any]:
    officer = found.officer
    return {
        "id": officer.id,
        "name": officer.name,
        "role": officer.role,
        "instead_of": found.instead_of,
    }


def rates(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """What became of what arrived: 响应率, 办结率, 按期办结率, 超时率, as counts and ratios."""
    part, query = _part(desk, call, level), call.query
    until = query["until"] or desk.now
    since = query["since"] or plus(until, -_RATES_SECONDS)
    if since >= until:
        raise problems.invalid({"from": "is not before to: write the earlier time here"})
    counts = desk.store.rates(part, since, until)
    of = {
        "response": ("acknowledged", "arrived"),
        "completion": ("completed", "arrived"),
        "on_time": ("on_time", "due"),
        "overdue": ("overdue", "arrived"),
    }
    ratios = {
        name: round(counts[part] / counts[whole], 4) if counts[whole] else None
        for name, (part, whole) in of.items()
    }
    about = {"level": level, "division": part.division, "unit": part.unit}
    return {
        **about,
        "from": since,
        "to": until,
        "counts": counts,
        "rates": ratios,
        "calls": _call_rates(desk.store.call_rates(part, since, until, desk.now)),
    }


def _call_rates(found: dict[str, Any]) -> dict[str, Any]:
    """What units made of calls: 按期报到率, 按期完成率, 评价."""
    counts = {name: found[name] for name in found if name != "score"}
    ratios = {
        kind: round(counts[f"{name}_on_time"] / counts[f"{name}_due"], 4)
        if counts[f"{name}_due"]
        else None
        for kind, name in whistles.DONE.items()
    }
    score = found["score"]
    return {
        "counts": counts,
        "rates": {**ratios, "score": None if score is None else round(score, 2)},
    }


def _unit(desk: Desk, division: str | None, named: str | None) -> str | None:
    """The id of a unit of this desk: as it is, or by its name in a division."""
    if named is None:
        return None
    directory, level = desk.county.atlas().directory, desk.config.level or ""
    found = directory.units.get(named)
    place = directory.ancestor(division, level) if division is not None else None
    if found is None and place is not None:
        found = directory.unit(named, level, place.code)
    if found is None or found.level != level:
        known = [unit for unit in directory.units.values() if unit.level == level]
        near = [unit.id for unit in known if place is None or unit.division == place.code]
        raise problems.invalid({"unit": not_among(named, sorted(near)[:20])})
    return found.id


def acknowledge(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer accepts a case."""
    record, body = _record(desk, call, level, case), call.body
    return _acted(desk, call, record, model.acknowledge, body["note"], body["attachments"])


def note(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer says how far a case is."""
    record, body = _record(desk, call, level, case), call.body
    another, step = call.idempotency_key is not None, body["step"]
    said = body["note"], body["attachments"]
    more: dict[str, Any] = {"another": another}
    if step is not None:
        wrong = model.wrong_step(_arrived(record), step)
        if wrong is not None:
            raise problems.invalid({"step": wrong})
        more["step"] = step
    return _acted(desk, call, record, model.note, *said, **more)


def request(desk: Desk, call: Call, level: str, case: str, action: str) -> Answer:
    """Asks the custodian to change who holds a case, and says what it answered."""
    body, by = call.body, call.identity.subject
    records = _of_case(desk, level, case)
    record = _chosen(desk, call, records)
    if call.idempotency_key is None and len(records) > 1:
        # Sent again after it was granted, to another place that this desk serves.
        before, after = (item.document or {} for item in records[-2:])
        follows = (before["round"], before["hop"] + 1) == (after["round"], after["hop"])
        same = action, body.get("to"), body["reason"]
        if follows and model.asked_before(before, by, *same, atlas=desk.county.atlas()):
            record = records[-2]
    _must_reach(desk, call, _arrived(record))
    while True:
        asked = _acted(
            desk,
            call,
            record,
            model.request,
            action,
            body["reason"],
            body["attachments"],
            to=body.get("to"),
            **({"authorise": True} if body.get("authorise") else {}),
        )
        answered = _answered(desk, record.key)
        later = _overtaken(desk, answered)
        if later is None:
            break
        record = later
    told = answered["request"]
    if told["answer"] == "refused":
        held_by = told["held_by"]
        why = _REFUSALS.get(told["why"], told["why"])
        where = " ".join(filter(None, (held_by["level"], held_by["division"], held_by["unit"])))
        said = f"the custodian refused it: {why}; {where} holds the case"
        raise Refused(said, why=told["why"], request=told, held_by=held_by)
    if told["answer"] is None:
        headers = {**asked.headers, "Location": _own(level, case)}
        return replace(asked, headers=headers, pending=True)
    return tagged(shown(answered))


def resolve(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer settles a case, with one of the outcomes of its profile."""
    record, body = _record(desk, call, level, case), call.body
    outcome, allowed = body["outcome"], _profile(desk, record).outcomes
    if outcome not in allowed:
        said = f"{outcome!r} is not in the profile: write {', '.join(allowed)}"
        raise problems.invalid({"outcome": said})
    scores = {"scores": body["scores"]} if body["scores"] else {}
    note, attached = body["note"], body["attachments"]
    return _acted(desk, call, record, model.resolve, outcome, note, attached, **scores)


def whistle(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer calls units to join a case (吹哨)."""
    record, body = _record(desk, call, level, case), call.body
    here = Address.of(_arrived(record)["state"]["address"])
    profile, directory = _profile(desk, record), desk.county.atlas().directory
    lead, words = body["lead"], [item["unit"] for item in body["units"]]
    if lead is not None and lead not in words:
        raise problems.invalid({"lead": not_among(lead, words)})
    try:
        found = whistles.named(body["units"], here, profile, directory)
    except whistles.WrongCall as error:
        raise problems.invalid(error.errors) from error
    ids = [unit.id for unit in found]
    asked = {kind: body[kind] for kind in whistles.KINDS if body[kind] is not None}
    said = ids, body["reason"], body["attachments"]
    leads = None if lead is None else ids[words.index(lead)]
    return _acted(desk, call, record, model.whistle, *said, lead=leads, asked=asked)


def release(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer lets a unit leave that was called, and scores it (评价)."""
    record, body = _record(desk, call, level, case), call.body
    said, shown_by = (body["unit"], body["score"], body["note"]), body["attachments"]
    return _acted(desk, call, record, model.release, *said, attachments=shown_by)


def called(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """A page of what the units of this level are called to, the latest first."""
    part, query = _part(desk, call, level), call.query
    records, cursor = desk.store.calls(part, query.get("status"), query["cursor"], query["limit"])
    return {"calls": [call_shown(record.document or {}) for record in records], "next": cursor}


def answer_call(
    desk: Desk, call: Call, level: str, identity: str, act: Callable[..., Decision]
) -> Answer:
    """An officer of a unit that is called checks in (报到), or says that it is done."""
    _serves(desk, level)
    by, body, atlas, now = call.identity.subject, call.body, desk.county.atlas(), desk.now

    def change(record: Record) -> Decision:
        document = record.document
        if document is None:
            raise Problem(404, f"no unit of the {level} desk was called under {identity}")
        call.guard.must_reach(atlas, whistles.address(document["call"]))
        said = body["note"], body["attachments"]
        decide = partial(act, document, by, *said, atlas=atlas, now=now)
        return on_what_was_seen(call, lambda: call_shown(document), decide)

    return tagged(call_shown(desk.act(Work(calls.key(identity), change), call.trail)))


def one_call(desk: Desk, call: Call, level: str, identity: str) -> Answer:
    """What a unit of this level is called to, with its tag."""
    _serves(desk, level)
    record = desk.store.read([calls.key(identity)]).get(calls.key(identity))
    if record is None or record.document is None:
        raise Problem(404, f"no unit of the {level} desk was called under {identity}")
    document = record.document
    call.guard.must_reach(desk.county.atlas(), whistles.address(document["call"]))
    return tagged(call_shown(document))


def call_shown(document: Document) -> dict[str, Any]:
    """A call as the officers of the unit see it."""
    facts, call = document["facts"], document["call"]
    names = ("id", "by", "at", "reason", "lead", *whistles.KINDS)
    return {
        "case": document["case"],
        **{name: facts[name] for name in ("tracking", "title", "category", "urgency", "division")},
        **{name: call[name] for name in names},
        "address": whistles.address(call).as_dict(),
        "called_by": document["called_in"]["address"],
        **{name: document[name] for name in ("checked_in", "finished", "ended", "status")},
    }


def suspend(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """A case waits for something, for a reason that its profile knows."""
    record, body = _record(desk, call, level, case), call.body
    reason, allowed, longest = body["reason"], _profile(desk, record).suspensions, None
    if reason not in allowed:
        known = f"write {', '.join(allowed)}" if allowed else "it lets no case wait"
        raise problems.invalid({"reason": f"{reason!r} is not in the profile: {known}"})
    if body["longest"] is not None:
        longest = _read("longest", body["longest"], deadlines.duration)
        if longest > allowed[reason].longest:
            raise problems.invalid({"longest": f"for {reason} the profile allows less"})
    said = reason, body["note"], body["attachments"]
    return _acted(desk, call, record, model.suspend, *said, longest=longest)


def resume(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """A case waits no longer."""
    record, body = _record(desk, call, level, case), call.body
    return _acted(desk, call, record, model.resume, body["note"], body["attachments"])


def extend(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """Asks the level above for more time."""
    record, body = _record(desk, call, level, case), call.body
    more, rule = _read("by", body["by"], deadlines.extension), _profile(desk, record).extension
    if rule is not None:
        most = rule.longest
        if more.form is not most.form:
            raise problems.invalid({"by": f"write it as the profile does: {most.text} at most"})
        if more.least > most.least:
            raise problems.invalid({"by": f"the profile allows {most.text} at once"})
    said = more.text, body["reason"], body["attachments"]
    another = {"another": True} if call.idempotency_key is not None else {}
    return _acted(desk, call, record, model.ask_extension, *said, **another)


def extensions(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """A page of what the level below asks this desk for, the latest first."""
    part, query = _part(desk, call, level), call.query
    records, cursor = desk.store.extensions(
        part, query.get("status"), query["cursor"], query["limit"]
    )
    shown = [extension_shown(record.document or {}) for record in records]
    return {"extensions": shown, "next": cursor}


def answer_extension(desk: Desk, call: Call, level: str, identity: str, *, granted: bool) -> Answer:
    """Grants more time, or refuses it; who asked applies it."""
    _serves(desk, level)
    by, body, atlas, now = call.identity.subject, call.body, desk.county.atlas(), desk.now

    def change(record: Record) -> Decision:
        asked = record.document
        if asked is None:
            raise Problem(404, f"the {level} desk was not asked for an extension {identity}")
        call.guard.must_reach(atlas, _asked_of(asked))
        said = body["note"], body["attachments"]
        answer = partial(
            model.answer_extension,
            asked,
            by,
            *said,
            granted=granted,
            atlas=atlas,
            now=now,
        )
        return on_what_was_seen(call, lambda: extension_shown(asked), answer)

    answered = desk.act(Work(model.extension_key(identity), change), call.trail)
    return tagged(extension_shown(answered))


def one_extension(desk: Desk, call: Call, level: str, identity: str) -> Answer:
    """What the step below asks this desk for, with its tag."""
    _serves(desk, level)
    key = model.extension_key(identity)
    record = desk.store.read([key]).get(key)
    if record is None or record.document is None:
        raise Problem(404, f"the {level} desk was not asked for an extension {identity}")
    call.guard.must_reach(desk.county.atlas(), _asked_of(record.document))
    return tagged(extension_shown(record.document))


def extension_shown(document: Document) -> dict[str, Any]:
    """What is asked for, as people see it."""
    facts, state = document["facts"], document["asked_in"]
    resolve = [item for item in state["deadlines"] if item["kind"] == "resolve"]
    return {
        **document["extension"],
        "case": document["case"],
        "tracking": facts["tracking"],
        "title": facts["title"],
        "urgency": facts["urgency"],
        "held_by": state["address"],
        "due": resolve[0]["due"] if resolve else None,
        "status": document["status"],
        "answer": document["answer"],
    }


def _acted(
    desk: Desk, call: Call, record: Record, act: Callable[..., Decision], *said: Any, **more: Any
) -> Answer:
    """Runs an action of the model on an entry, and shows the entry.

    What was done under the same Idempotency-Key, or what the model takes for the same once more,
    is answered as it was; anything else only if the entry is still what ``If-Match`` says.
    """
    by, atlas, now = call.identity.subject, desk.county.atlas(), desk.now
    key, digest = _key(call), _digest([act.__name__, said, more])

    def change(record: Record) -> Decision:
        found = _arrived(record)
        known = model.done(found, key) if key is not None else None
        if known == digest:
            return Decision(found, answer=found)
        if known is not None:
            raise Refused("this Idempotency-Key was used for another action: use a new key")
        decide = partial(act, found, by, *said, atlas=atlas, now=now, **more)
        try:
            decision = on_what_was_seen(call, lambda: shown(found), decide)
        except Refused as error:
            # Whatever stands against it, it is said who holds the case.
            holds = found["held"] or found["state"]
            raise error.saying(held_by=holds["address"]) from error
        except (WrongPlace, whistles.WrongCall) as error:
            raise problems.invalid(error.errors) from error
        if key is None:
            return decision
        kept = model.remembered(decision.document or found, key, digest)
        return replace(decision, document=kept, answer=kept)

    return tagged(shown(desk.act(Work(record.key, change), call.trail)))


def _answered(desk: Desk, key: str) -> Document:
    """The entry once the custodian has answered its request, or after some seconds as it is."""
    until, pause = monotonic() + ANSWER_SECONDS, 0.05
    while True:
        # Any replica of this desk may be the one that hears of the answer.
        found = _arrived(desk.store.read([key])[key])
        if found["request"]["answer"] is not None or monotonic() > until:
            return found
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _overtaken(desk: Desk, answered: Document) -> Record | None:
    """The next entry of a case, if a hop that left it with this holder overtook their request.

    They have lost nothing: what they asked for is asked again there.
    """
    told, own = answered["request"], answered["state"]["address"]
    if (told["answer"], told.get("why"), told.get("held_by")) != ("refused", "too_late", own):
        return None
    until = monotonic() + ANSWER_SECONDS
    while True:
        latest = desk.store.of_case(answered["case"])[-1]
        found = latest.document or {}
        if (found["round"], found["hop"]) > (answered["round"], answered["hop"]):
            return latest if found["state"] and found["state"]["address"] == own else None
        if monotonic() > until:
            return None
        time.sleep(0.05)


def _key(call: Call) -> str | None:
    """A caller's Idempotency-Key, as an entry remembers it."""
    if call.idempotency_key is None:
        return None
    return _digest([call.identity.subject, call.idempotency_key])


def _digest(value: Any) -> str:
    return blake2b(json.dumps(value), digest_size=12).hexdigest()


def _own(level: str, case: str) -> str:
    return f"/v1/desks/{level}/cases/{case}"


def _profile(desk: Desk, record: Record) -> Profile:
    return desk.county.rules_for(_arrived(record)["facts"])


def _read(name: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise problems.invalid({name: str(error)}) from error


def shown(entry: Document) -> dict[str, Any]:
    """A docket entry as people see it."""
    facts, state = entry["facts"], entry["state"]
    return {
        "id": entry["case"],
        "tracking": facts["tracking"],
        "title": facts["title"],
        "category": facts["category"],
        "urgency": facts["urgency"],
        "division": facts["division"],
        "triage": facts["triage"],
        "emergency": facts.get("emergency"),
        "reported_at": facts["reported_at"],
        "round": entry["round"],
        "hop": entry["hop"],
        "arrived_at": entry["arrived"],
        "token": state["token"],
        "address": state["address"],
        "assigned": state["assigned"],
        "acknowledged": state["acknowledged"],
        "clocks": state["clocks"],
        "deadlines": state["deadlines"],
        "resolution": state["resolution"],
        "suspension": state.get("suspension"),
        "extensions": state.get("extensions", []),
        "extension": entry.get("extension"),
        "procedure": _procedure_shown(entry),
        "authority": state.get("authority"),
        "request": entry.get("request"),
        "notes": entry.get("notes", []),
        "joined": whistles.shown(state, entry.get("progress")),
        "status": entry["status"],
        "ended": entry["ended"],
        "held_by": entry["held"] and entry["held"]["address"],
        "refused": entry["refused"]
        and {name: entry["refused"][name] for name in ("request", "why")},
        "passed": entry.get("passed", []),
        "follows": facts.get("follows"),
        "followers": (entry.get("merged") or {"followers": []})["followers"],
    }


def _procedure_shown(entry: Document) -> dict[str, Any] | None:
    procedure = entry.get("procedure")
    if procedure is None:
        return None
    taken = entry["state"].get("steps", ())
    done = {item["step"]: {"by": item["by"], "at": item["at"]} for item in taken}
    steps = [{**item, "done": done.get(item["id"])} for item in procedure["steps"]]
    return {**procedure, "steps": steps}


def _record(desk: Desk, call: Call, level: str, case: str) -> Record:
    """The entry to act on, which the caller reaches; its address never changes."""
    record = _chosen(desk, call, _of_case(desk, level, case))
    _must_reach(desk, call, _arrived(record))
    return record


def _chosen(desk: Desk, call: Call, records: list[Record]) -> Record:
    """The latest of a case's entries for the caller, or where its Idempotency-Key was used."""
    key = _key(call)
    if key is not None:
        for record in records:
            if model.done(record.document or {}, key) is not None:
                return record
    return _latest(desk, call, records)


def _latest(desk: Desk, call: Call, records: list[Record]) -> Record:
    """The latest of a case's entries that the caller reaches, or of all if there is none.

    So whom it has left for another place that this desk serves is told who holds it now.
    """
    atlas = desk.county.atlas()
    for record in reversed(records):
        state = (record.document or {}).get("state")
        if state is not None and call.guard.reaches(atlas, Address.of(state["address"])):
            return record
    return records[-1]


def _must_reach(desk: Desk, call: Call, found: Document) -> None:
    call.guard.must_reach(desk.county.atlas(), Address.of(found["state"]["address"]))


def _of_case(desk: Desk, level: str, case: str) -> list[Record]:
    """The entries of each time that the case came to this desk, the latest last."""
    _serves(desk, level)
    found = desk.store.of_case(case)
    if not found:
        raise Problem(404, f"case {case} has not come to the {level} desk")
    return found


def _part(desk: Desk, call: Call, level: str) -> Scope:
    """The part of this desk's work that a list is about."""
    _serves(desk, level)
    division = call.query.get("division")
    unit = _unit(desk, division, call.query.get("unit"))
    return call.guard.narrowed(desk.county.atlas(), division, level, unit)


def _asked_of(document: Document) -> Address:
    """Whom the holder asked for more time: this desk, or a unit of it."""
    return Address.of(document["asked_of"])


def elsewhere(
    desk: Desk, call: Call, level: str, case: str, *, act: DeskAct, rpc: Caller
) -> Answer:
    """What is done at this desk, by those who act for its level, and decided elsewhere."""
    _serves(desk, level)
    call.guard.narrowed(desk.county.atlas(), None, level)
    return relay.ask(rpc, act, call, case)


def _serves(desk: Desk, level: str) -> None:
    here = desk.config.level
    if level != here:
        raise Problem(404, f"this is the {here} desk: ask the {level} desk's own address")


def _arrived(record: Record) -> Document:
    if record.document is None or record.document["state"] is None:
        raise Problem(404, "the case has not arrived here yet: only its release is known")
    return record.document
