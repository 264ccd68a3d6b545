"""Intake over HTTP: reports come in; cases, timelines and tracking go out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.bus import logs, problems
from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.bus.openapi import Shown
from services.bus.paging import PageQuery
from services.bus.problems import Problem
from services.bus.versions import etag, on_what_was_seen, tagged
from services.bus.web import Answer, Call
from services.grid import whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events.case import UpdateSchema
from services.grid.events.directory import EmergencySchema
from services.grid.events.envelope import NAMESPACE
from services.grid.events.parts import (
    CODE,
    WORD,
    AcknowledgedSchema,
    AddressSchema,
    AssignedSchema,
    AttachmentSchema,
    AuthoritySchema,
    CallSchema,
    ClocksSchema,
    DeadlineSchema,
    Flag,
    InstantField,
    Number,
    ProgressSchema,
    ResolutionSchema,
    SuspensionSchema,
    TakenSchema,
    TokenSchema,
    attachments,
    plain,
    plain_lines,
    public_text,
)
from services.grid.problems import not_among
from services.grid.profile import profile_for
from services.grid.scope import WHOLE
from services.grid.tokens import Address, Token
from services.intake import directory, model
from services.intake.feedback import BY_CODE, give
from services.intake.linking import linked, noted
from services.intake.reporting import known_division, opened, opening
from services.intake.shell import IntakeShell
from services.intake.store import phone_digits

log = logs.get(__name__)

REPORTERS = ("reporter", "officer", "lead", "operator", "system")
READERS = ("officer", "lead", "operator", "auditor")
SEEING = (*READERS, "reporter", "system")
CONTACTERS = ("officer", "lead", "operator")
FORGETTERS = ("operator",)
SWITCHERS = ("operator",)
REOPENERS = ("lead", "operator")
# Those who call back, and the person or system that reported it.
ANSWERERS = ("lead", "operator", "reporter", "system")
NO_FEEDBACK = {409: "It is not resolved, other feedback was given, or none is asked for."}
NO_EMERGENCY = {409: "The profile has no emergency mode, or it was never on here."}

STATUSES = ("reported", "acknowledged", "withdrawn", "resolved", "closed")

_PROFILES = {"description": "one of the profile's"}


class LocationSchema(Schema):
    """WGS 84, degrees."""

    lat = Number(required=True, validate=validate.Range(-90, 90))
    long = Number(required=True, validate=validate.Range(-180, 180))


class ReporterSchema(Schema):
    """Who reports: kept encrypted, in no event, log or metric."""

    name = fields.String(validate=[validate.Length(1, 80), plain])
    phone = fields.String(
        validate=validate.Regexp(
            r"^\+?[0-9][0-9 -]{3,18}[0-9]\Z", error="Write a phone number: digits, spaces, hyphens."
        )
    )
    address = fields.String(validate=[validate.Length(1, 200), plain])
    email = fields.Email(validate=[validate.Length(max=200), plain])
    device = fields.String(validate=[validate.Length(1, 200), plain])
    account = fields.String(validate=[validate.Length(1, 200), plain])


class ExternalSchema(Schema):
    """The same matter in another system."""

    system = fields.String(required=True, validate=WORD)
    reference = fields.String(required=True, validate=[validate.Length(1, 100), plain])


class ReportBody(Schema):
    """Body of ``POST /v1/cases``."""

    example: ClassVar[dict[str, Any]] = {
        "division": "46900210421403007",
        "title": "文化广场路灯不亮",
        "description": "东侧第三盏, 已有三天。",
        "category": "facility",
        "urgency": "ordinary",
        "source": "app",
        "occurred_at": "2026-03-02T19:40:00+08:00",
        "location": {"lat": 19.1502, "long": 110.5823},
        "attachments": [{"url": "https://files.example.cn/lamp.jpg", "sha256": "5f" * 32}],
        "reporter": {"name": "林某", "phone": "0898 6282 1234"},
        "external": {"system": "hotline", "reference": "12345-2026-0302-77"},
    }

    division = fields.String(
        validate=CODE,
        load_default=None,
        allow_none=True,
        metadata={"description": "a code at any level; this or `address` must be there"},
    )
    address = fields.String(
        validate=[validate.Length(1, 200), plain],
        load_default=None,
        allow_none=True,
        metadata={"description": "an address or the name of a place"},
    )
    title = public_text(200, required=True, shortest=1)
    description = fields.String(validate=[validate.Length(max=5000), plain_lines], load_default="")
    category = fields.String(required=True, validate=WORD, metadata=_PROFILES)
    urgency = fields.String(required=True, validate=WORD, metadata=_PROFILES)
    source = fields.String(required=True, validate=WORD, metadata=_PROFILES)
    occurred_at = InstantField(load_default=None, allow_none=True)
    location = fields.Nested(LocationSchema, load_default=None, allow_none=True)
    attachments = attachments("raise", load_default=list)
    reporter = fields.Nested(ReporterSchema, load_default=None, allow_none=True)
    external = fields.Nested(ExternalSchema, load_default=None, allow_none=True)

    @validates_schema
    def _says_where(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["division"] is None and data["address"] is None:
            raise ValidationError(
                "Say where: a division code, or an address or place name in address.", "division"
            )

    @validates_schema
    def _names_nobody(self, data: dict[str, Any], **_kwargs: Any) -> None:
        told = data["reporter"] or {}
        name, digits = told.get("name", ""), phone_digits(told.get("phone", ""))
        title = data["title"]
        if (len(name) > 1 and name in title) or (digits and digits in phone_digits(title)):
            raise ValidationError(
                "The title is shown to others: leave out who reports it.", "title"
            )


class PublicKeySchema(Shown):
    """A public key (JWK, RFC 7517) of curve P-256."""

    kty = fields.String()
    crv = fields.String()
    x = fields.String()
    y = fields.String()
    kid = fields.String()
    use = fields.String()
    alg = fields.String()


class KeysShown(Shown):
    """The key to seal a reporter to (JWK Set); empty where this county has none."""

    keys = fields.List(fields.Nested(PublicKeySchema))


class ReopenBody(Schema):
    """Body of ``POST /v1/cases/{id}/reopen`` (重新办理)."""

    example: ClassVar[dict[str, Any]] = {"reason": "雨后又漏水, 未修好。"}

    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class FeedbackBody(Schema):
    """Body of ``POST /v1/cases/{id}/feedback`` and ``POST /v1/tracking/{code}/feedback`` (回访).

    The comment stays in the register, like the description of a report; ``score`` 5 is the best.
    """

    example: ClassVar[dict[str, Any]] = {"satisfied": True, "score": 5, "comment": "当天就修好了"}

    satisfied = Flag(required=True)
    score = fields.Integer(
        strict=True, load_default=None, allow_none=True, validate=validate.Range(1, 5)
    )
    comment = fields.String(validate=[validate.Length(max=2000), plain_lines], load_default="")


class WithdrawBody(Schema):
    """Body of ``POST /v1/cases/{id}/withdraw`` (撤回)."""

    example: ClassVar[dict[str, Any]] = {"reason": "自己修好了"}

    reason = public_text(500, required=True, shortest=1)


class SwitchBody(Schema):
    """Body of ``POST /v1/emergencies/{division}/begin`` and ``.../end`` (战时机制)."""

    example: ClassVar[dict[str, Any]] = {"reason": "台风红色预警"}

    reason = public_text(500, required=True, shortest=1)


class TimelineQuery(PageQuery):
    """Query of ``GET /v1/cases/{id}/timeline``: nearly every case fits into one page."""

    limit = fields.Integer(load_default=1000, validate=validate.Range(1, 1000))


class CasesQuery(PageQuery):
    """Filters of ``GET /v1/cases``."""

    example: ClassVar[dict[str, Any]] = {
        "division": "469002104",
        "status": "reported",
        "level": "village",
        "category": "facility",
        "reported_from": "2026-03-01T00:00:00+08:00",
        "reported_to": "2026-04-01T00:00:00+08:00",
        "limit": 20,
    }

    division = fields.String(validate=CODE, load_default=None)
    status = fields.String(
        validate=validate.OneOf(STATUSES),
        load_default=None,
    )
    level = fields.String(validate=WORD, load_default=None)
    category = fields.String(validate=WORD, load_default=None)
    reported_from = InstantField(load_default=None)
    reported_to = InstantField(load_default=None)


class CaseLinks(Shown):
    """Where more about a case is."""

    self = fields.String()
    timeline = fields.String()
    tracking = fields.String()


class Opened(Shown):
    """The answer to a report; the same for the same case, whatever has happened since."""

    id = fields.String()
    tracking = fields.String(metadata={"description": "the code with which anybody may ask"})
    division = fields.String()
    triage = fields.Boolean(
        metadata={"description": "whether the place is not certain and has to be found (分拨)"}
    )
    profile = fields.String(metadata={"description": "the profile's version"})
    reported_at = InstantField()
    links = fields.Nested(CaseLinks)


class NamedDivision(Shown):
    """A division's code and whole name."""

    code = fields.String()
    name = fields.String()


class NamedAddress(Shown, AddressSchema):
    """Where a case is (责任主体), with the division's whole name."""

    name = fields.String()


class Supervision(Shown):
    """How often the round was supervised (督办), and when last."""

    round = fields.Integer()
    times = fields.Integer()
    last = InstantField()


class Reopening(Shown):
    """Who wanted the round, and why."""

    by = fields.String()
    reason = fields.String()
    round = fields.Integer()


class Withdrawal(Shown):
    """Who took the report back (撤回), why and when."""

    by = fields.String()
    reason = fields.String()
    at = InstantField()
    round = fields.Integer()


class FeedbackShown(Shown):
    """What the reporter said of a round (回访), the last time; ``by`` who asked."""

    satisfied = fields.Boolean()
    score = fields.Integer(allow_none=True, metadata={"description": "1 to 5, 5 is the best"})
    comment = fields.String()
    by = fields.String(metadata={"description": "`tracking_code` for whoever knew it"})
    at = InstantField()
    round = fields.Integer()


class ClosingShown(Shown):
    """Until when an answer is waited for, and why so long."""

    due = InstantField()
    rule = fields.String()
    source = fields.String()
    calendar = fields.String(allow_none=True)
    counted = fields.List(fields.String())


class Closed(Shown):
    """Why the case is closed (销号), and since when."""

    why = fields.String(validate=validate.OneOf(["confirmed", "unanswered"]))
    at = InstantField()
    round = fields.Integer()


class Joined(Shown, CallSchema, ProgressSchema):
    """A unit that was called to the case, and what it did."""


class CaseShown(Shown):
    """A case as people see it; never who reported it."""

    id = fields.String()
    tracking = fields.String()
    status = fields.String(validate=validate.OneOf(STATUSES))
    title = fields.String()
    description = fields.String()
    category = fields.String()
    urgency = fields.String()
    source = fields.String()
    division = fields.Nested(NamedDivision)
    triage = fields.Boolean()
    address = fields.Nested(NamedAddress)
    token = fields.Nested(TokenSchema)
    assigned = fields.Nested(AssignedSchema, allow_none=True)
    acknowledged = fields.Nested(AcknowledgedSchema, allow_none=True)
    clocks = fields.Nested(ClocksSchema)
    deadlines = fields.List(fields.Nested(DeadlineSchema))
    resolution = fields.Nested(ResolutionSchema, allow_none=True)
    late_custody = fields.Boolean(
        metadata={"description": "whether who resolved it did not hold it any more"}
    )
    supervised = fields.Nested(Supervision, allow_none=True)
    suspension = fields.Nested(SuspensionSchema, allow_none=True)
    joined = fields.List(
        fields.Nested(Joined), metadata={"description": "the units called in this round (吹哨报到)"}
    )
    steps = fields.List(
        fields.Nested(TakenSchema), metadata={"description": "of a procedure (四议两公开), done"}
    )
    authority = fields.Nested(AuthoritySchema, allow_none=True)
    reopening = fields.Nested(Reopening, allow_none=True)
    watchers = fields.List(fields.String())
    follows = fields.String(
        allow_none=True, metadata={"description": "the older case that it was merged into (并案)"}
    )
    followers = fields.List(
        fields.String(), metadata={"description": "the cases that follow this one"}
    )
    linked = fields.List(
        fields.String(), metadata={"description": "cases that have to do with it (关联)"}
    )
    withdrawal = fields.Nested(Withdrawal, allow_none=True)
    feedback = fields.Nested(FeedbackShown, allow_none=True)
    closing = fields.Nested(ClosingShown, allow_none=True)
    closed = fields.Nested(Closed, allow_none=True)
    profile = fields.String()
    emergency = fields.String(allow_none=True)
    ladder = fields.String()
    reported_at = InstantField()
    occurred_at = InstantField(allow_none=True)
    location = fields.Nested(LocationSchema, allow_none=True)
    place = fields.String(allow_none=True, metadata={"description": "the address, as reported"})
    attachments = fields.List(fields.Nested(AttachmentSchema))
    media = fields.List(
        fields.String(), metadata={"description": "URLs of an Open311 client, without a digest"}
    )
    external = fields.Nested(ExternalSchema, allow_none=True)
    respond_by = InstantField(
        allow_none=True, metadata={"description": "by when another system has promised an answer"}
    )
    updates = fields.List(fields.Nested(UpdateSchema))
    links = fields.Nested(CaseLinks)


class CasesPage(Shown):
    """A page of cases."""

    cases = fields.List(fields.Nested(CaseShown))
    next = fields.String(allow_none=True)


class TimelineEvent(Shown):
    """An event of a case, as the bus carried it, and when intake received it."""

    id = fields.String()
    type = fields.String()
    time = InstantField()
    received = InstantField()
    source = fields.String()
    data = fields.Dict(keys=fields.String())


class TimelinePage(Shown):
    """A page of a case's timeline."""

    case = fields.String()
    events = fields.List(fields.Nested(TimelineEvent))
    next = fields.String(allow_none=True)


class ReporterShown(Shown):
    """Who reported a case; null once it is forgotten."""

    case = fields.String()
    reporter = fields.Nested(ReporterSchema, allow_none=True)


class EmergencyShown(Shown, EmergencySchema):
    """A division that is, or was, in emergency mode (战时机制)."""

    id = fields.String(metadata={"description": "what its cases name in `emergency`"})
    name = fields.String()


class Emergencies(Shown):
    """Every division that was ever switched, those that are on first."""

    emergencies = fields.List(fields.Nested(EmergencyShown))


class TrackingShown(Shown):
    """How far a case is, and nothing about people."""

    tracking = fields.String()
    status = fields.String(validate=validate.OneOf(STATUSES))
    level = fields.String()
    level_title = fields.String()
    reported_at = InstantField()
    due = InstantField(allow_none=True)
    outcome = fields.String(allow_none=True)
    ended_at = InstantField(allow_none=True)
    feedback_until = InstantField(
        allow_none=True, metadata={"description": "until when an answer is waited for"}
    )
    satisfied = fields.Boolean(allow_none=True, metadata={"description": "what was answered last"})
    merged = fields.Boolean(
        metadata={"description": "whether it is settled together with an older report (并案)"}
    )


def report(intake: IntakeShell, call: Call) -> Answer:
    """Opens a case; the same ``Idempotency-Key`` gives the same case again."""
    body = call.body
    case = str(
        uuid.uuid5(NAMESPACE, str((call.identity.subject, call.idempotency_key)))
        if call.idempotency_key
        else uuid.uuid4()
    )
    digest = intake.reporters.digest(body)
    first = intake.store.read([case]).get(case) if call.idempotency_key else None
    if first is not None and first.document is not None:
        # Answered before any rule is asked: they may have changed since.
        call.trail.changed(first.document, first.document)
        return _answer(model.same_report(first.document, digest))
    opens = opening(intake, case, body, call.identity.subject, digest)
    return _answer(opened(lambda work: intake.act(work, call.trail), opens))


def show(intake: IntakeShell, call: Call, case: str) -> Answer:
    """A case with its address, token, clocks and deadlines; never who reported it."""
    return tagged(shown(readable(intake, call, case), intake.county.atlas()))


def reopen(intake: IntakeShell, call: Call, case: str) -> Answer:
    """A resolved case is taken up again."""
    document, atlas, now = _document(intake, case), intake.county.atlas(), intake.now
    by, said = call.identity.subject, (call.body["reason"], call.body["attachments"])

    def change(record: Record) -> Decision:
        latest = record.document or document
        call.guard.must_reach(atlas, Address.of(latest["state"]["address"]))
        decide = partial(model.reopen, latest, by, *said, atlas=atlas, now=now)
        return _on_what_was_seen(call, latest, atlas, decide)

    return tagged(shown(intake.act(Work(case, change), call.trail), atlas))


def watch(intake: IntakeShell, call: Call, case: str, *, away: bool) -> Answer:
    """Somebody is told of what happens to a case from now on, or no longer."""
    readable(intake, call, case)
    atlas, now, by = intake.county.atlas(), intake.now, call.identity.subject
    watcher = [_watcher(atlas, call.body, away=away)]
    added, removed = ([], watcher) if away else (watcher, [])
    said = noted(call.body)

    def change(record: Record) -> Decision:
        latest = record.document or {}
        decide = partial(model.watch, latest, by, added, removed, said=said, atlas=atlas, now=now)
        return on_what_was_seen(call, lambda: shown(latest, atlas), decide)

    document = intake.act(Work(case, change), call.trail)
    headers = {"ETag": etag(shown(document, atlas))}
    return Answer({"id": case, "watchers": _watchers(document)}, headers=headers)


def _watcher(atlas: Atlas, body: dict[str, Any], *, away: bool) -> str:
    """The reference of who is told, who must be there unless they are to be told no longer."""
    if "officer" in body:
        if not away and body["officer"] not in atlas.directory.officers:
            said = f"{body['officer']!r} is no officer of the directory: write an officer's id"
            raise problems.invalid({"officer": said})
        return f"officer:{body['officer']}"
    place = known_division(atlas, body["division"])
    if place.level != body["level"]:
        said = f"{place.code} {place.name} is a {place.level}: write that, or another division"
        raise problems.invalid({"level": said})
    return f"desk:{body['level']}:{body['division']}"


def _watchers(document: Document) -> list[str]:
    return list((document.get("watchers") or {"to": []})["to"])


def feedback(intake: IntakeShell, call: Call, case: str) -> Answer:
    """What the reporter said of how the case was resolved, written down by who asked."""
    _answerable(intake, call, case)
    document = _feedback(intake, call, case, call.identity.subject)
    return tagged(shown(document, intake.county.atlas()))


def feedback_by_code(intake: IntakeShell, call: Call, code: str) -> dict[str, Any]:
    """The same from whoever knows the tracking code; the answer is what they may see."""
    case = _tracked(intake, code)["case"]
    return _tracking(_feedback(intake, call, case, BY_CODE), intake.county.atlas())


def _feedback(intake: IntakeShell, call: Call, case: str, by: str) -> Document:
    said, now = call.body, intake.now

    def made(atlas: Atlas) -> Work:
        def change(record: Record) -> Decision:
            latest = record.document or {}
            decide = partial(give, latest, said, by, atlas=atlas, now=now)
            if by == BY_CODE:
                # Whoever just knows the code has seen no version of the case, and is shown none.
                return decide()
            return _on_what_was_seen(call, latest, atlas, decide)

        return Work(case, change)

    work = intake.knowing(made, intake.county.atlas())
    given: Document = intake.act(work, call.trail)
    return given


def withdraw(intake: IntakeShell, call: Call, case: str) -> Answer:
    """A report is taken back."""
    _answerable(intake, call, case)
    by, reason, atlas, now = (
        call.identity.subject,
        call.body["reason"],
        intake.county.atlas(),
        intake.now,
    )

    def change(record: Record) -> Decision:
        latest = record.document or {}
        decide = partial(model.withdraw, latest, by, reason, atlas=atlas, now=now)
        return _on_what_was_seen(call, latest, atlas, decide)

    return tagged(shown(intake.act(Work(case, change), call.trail), atlas))


def _on_what_was_seen(
    call: Call, document: Document, atlas: Atlas, decide: Callable[[], Decision]
) -> Decision:
    """A decision on a case; whatever stands against it, it is said who holds the case."""
    try:
        return on_what_was_seen(call, lambda: shown(document, atlas), decide)
    except Refused as error:
        raise error.saying(held_by=document["state"]["address"]) from error


def _answerable(intake: IntakeShell, call: Call, case: str) -> None:
    """That the case is the caller's own report, or where the caller acts."""
    if call.guard.reports:
        document = _document(intake, case)
        call.guard.must_have_reported((document["report"] or {}).get("by"))
    else:
        _reached(intake, call, case)


def timeline(intake: IntakeShell, call: Call, case: str) -> dict[str, Any]:
    """A page of a case's events, in the order of their time."""
    readable(intake, call, case)
    raws, following = intake.timeline.of(case, call.query["cursor"], call.query["limit"])
    events = [
        {
            "id": raw["_id"],
            "type": raw["type"],
            "time": raw["time"],
            "received": raw["received"],
            "source": raw["source"],
            "data": raw["data"],
        }
        for raw in raws
    ]
    events.sort(key=_order)
    return {"case": case, "events": events, "next": following}


def cases(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """A page of cases, the latest report first."""
    filters = dict(call.query)
    cursor, limit = filters.pop("cursor"), filters.pop("limit")
    atlas = intake.county.atlas()
    if filters["division"] is not None:
        known_division(atlas, filters["division"])
    profiles = atlas.profiles.values()
    for name, known in (
        ("level", {level for profile in profiles for level in profile.levels}),
        ("category", {category for profile in profiles for category in profile.categories}),
    ):
        if filters[name] is not None and filters[name] not in known:
            raise problems.invalid({name: not_among(filters[name], sorted(known))})
    if call.guard.reports:
        part, by = WHOLE, call.guard.own()
    else:
        part, by = call.guard.narrowed(atlas, filters["division"], filters["level"]), None
    levels = None if part.level is None else sorted(atlas.levels_up_to(part.level))
    limits = {"division": part.division, "levels": levels, "unit": part.unit, "by": by}
    kept = {**filters, **{name: value for name, value in limits.items() if value is not None}}
    records, following = intake.store.cases(kept, cursor, limit)
    return {
        "cases": [shown(record.document or {}, atlas) for record in records],
        "next": following,
    }


def tracking(intake: IntakeShell, _call: Call, code: str) -> dict[str, Any]:
    """What anybody who knows the code may see: how far it is, and nothing about people."""
    return _tracking(_tracked(intake, code), intake.county.atlas())


def _tracked(intake: IntakeShell, code: str) -> Document:
    try:
        read = model.read_tracking_code(code)
    except ValueError as error:
        raise problems.invalid({"code": str(error)}) from error
    document = intake.store.by_tracking(read)
    if document is None:
        raise Problem(404, "no case has this tracking code: compare it with what you were given")
    return document


def _tracking(document: Document, atlas: Atlas) -> dict[str, Any]:
    facts, state = document["facts"], document["state"]
    address, level = Address.of(state["address"]), state["address"]["level"]
    profile = atlas.rules_for(facts) if atlas.knows(facts) else None
    directory = atlas.directory
    return {
        "tracking": facts["tracking"],
        "status": document["status"],
        "level": level,
        "level_title": profile.title_of(facts["ladder"], address, directory) if profile else level,
        "reported_at": facts["reported_at"],
        "due": _next_due(state),
        "outcome": state["resolution"] and state["resolution"]["outcome"],
        "ended_at": _ended_at(document),
        "feedback_until": (document.get("closing") or {"due": None})["due"],
        "satisfied": (document.get("feedback") or {"satisfied": None})["satisfied"],
        "merged": "follows" in facts,
    }


def _ended_at(document: Document) -> Instant | None:
    """When the present round was resolved or withdrawn."""
    if document["status"] == "withdrawn":
        # The custodian may have been the one who told, after a restore.
        return Instant(document["withdrawal"]["at"]) if document.get("withdrawal") else None
    resolution = document["state"]["resolution"]
    return resolution and Instant(resolution["at"])


def reporter(intake: IntakeShell, call: Call, case: str) -> Answer:
    """Who reported a case, for those who have to call back."""
    document = _reached(intake, call, case)
    sealed = (document["report"] or {}).get("reporter")
    opened = intake.reporters.open(sealed) if sealed else None
    if opened is None:
        raise Problem(404, "nobody left a name or number with this case, or it was deleted")
    return Answer({"case": case, "reporter": opened}, headers={"Cache-Control": "no-store"})


def forget(intake: IntakeShell, call: Call, case: str) -> Answer:
    """Shreds the reporter's key: nobody can read any more what this person ever told."""
    document = _reached(intake, call, case)
    sealed = (document["report"] or {}).get("reporter")
    if sealed is None:
        raise Problem(404, "nobody left a name or number with this case")
    intake.reporters.shred(sealed["reference"])
    call.trail.about(case, reporter="forgotten")
    return Answer({"case": case, "reporter": None})


def shown(document: Document, atlas: Atlas) -> dict[str, Any]:
    """A case as people see it."""
    facts, state = document["facts"], document["state"]
    case = document["case"]
    told = document["report"] or {}
    address = state["address"]
    return {
        "id": case,
        "tracking": facts["tracking"],
        "status": document["status"],
        "title": facts["title"],
        "description": told.get("description", ""),
        "category": facts["category"],
        "urgency": facts["urgency"],
        "source": facts["source"],
        "division": _named(facts["division"], atlas),
        "triage": facts["triage"],
        "address": {**address, "name": atlas.directory.name(address["division"])},
        "token": state["token"],
        "assigned": state["assigned"],
        "acknowledged": state["acknowledged"],
        "clocks": state["clocks"],
        "deadlines": state["deadlines"],
        "resolution": state["resolution"],
        "late_custody": document["late_custody"],
        "supervised": document["supervision"],
        "suspension": state.get("suspension"),
        "joined": whistles.shown(state, document.get("progress")),
        "steps": state.get("steps", []),
        "authority": state.get("authority"),
        "reopening": document.get("reopening"),
        "watchers": _watchers(document),
        "follows": facts.get("follows"),
        "followers": (document.get("merged") or {"followers": []})["followers"],
        "linked": linked(document),
        "withdrawal": document.get("withdrawal"),
        "feedback": document.get("feedback"),
        "closing": _closing(document),
        "closed": _closed(document),
        "profile": facts["profile"],
        "emergency": facts.get("emergency"),
        "ladder": facts["ladder"],
        "reported_at": facts["reported_at"],
        "occurred_at": told.get("occurred_at"),
        "location": told.get("location"),
        "place": told.get("address"),
        "attachments": told.get("attachments", []),
        "media": told.get("media", []),
        "external": told.get("external"),
        "respond_by": facts.get("respond_by"),
        "updates": document.get("updates", []),
        "links": _links(document),
    }


def _closing(document: Document) -> dict[str, Any] | None:
    """Until when an answer is waited for, with the rule and what was counted."""
    known = document.get("closing")
    return known and {name: value for name, value in known.items() if name != "token"}


def _closed(document: Document) -> dict[str, Any] | None:
    """Why it is closed, unless it was taken up again since."""
    return document.get("closed") if document["status"] == "closed" else None


def _answer(document: Document) -> Answer:
    """The answer to a report; the same for the same case, whatever has happened since."""
    facts, links = document["facts"], _links(document)
    body = {
        "id": document["case"],
        "tracking": facts["tracking"],
        "division": facts["division"],
        "triage": facts["triage"],
        "profile": facts["profile"],
        "reported_at": facts["reported_at"],
        "links": links,
    }
    return Answer(body, headers={"Location": links["self"]})


def _order(event: dict[str, Any]) -> tuple[Any, ...]:
    """By time; what was decided at the same moment by the state that it led to."""
    state = event["data"].get("state")
    token = Token.of(state["token"]) if state else ()
    return event["time"], token, event["type"]


def _links(document: Document) -> dict[str, str]:
    own = f"/v1/cases/{document['case']}"
    return {
        "self": own,
        "timeline": f"{own}/timeline",
        "tracking": f"/v1/tracking/{document['facts']['tracking']}",
    }


def _next_due(state: dict[str, Any]) -> Instant | None:
    dues = [item["due"] for item in state["deadlines"] if item["kind"] != "remind"]
    return min(dues, default=None)


def _named(code: str, atlas: Atlas) -> dict[str, str]:
    return {"code": code, "name": atlas.directory.name(code)}


def _document(intake: IntakeShell, case: str) -> Document:
    record = intake.store.read([case]).get(case)
    if record is None or record.document is None:
        raise Problem(404, f"there is no case {case}")
    return record.document


def readable(intake: IntakeShell, call: Call, case: str) -> Document:
    """A case that the caller may read: their own report, or one that is or happened where they are.

    So whom a case was taken from by a transfer can still follow it. Or one that a unit of theirs is
    called to.
    """
    document = _document(intake, case)
    if call.guard.reports:
        call.guard.must_have_reported((document["report"] or {}).get("by"))
    else:
        address = Address.of(document["state"]["address"])
        places = address.where(document["facts"]["division"])
        # Who is called to a case must know what it is about.
        called = map(whistles.address, whistles.standing(document["state"]))
        call.guard.must_reach(intake.county.atlas(), *places, *called)
    return document


def _reached(intake: IntakeShell, call: Call, case: str) -> Document:
    """A case that is where the caller may act."""
    document = _document(intake, case)
    call.guard.must_reach(intake.county.atlas(), Address.of(document["state"]["address"]))
    return document


def emergencies(intake: IntakeShell, _call: Call) -> dict[str, Any]:
    """Every division that was ever switched, those that are in emergency mode now first."""
    atlas = intake.county.atlas()
    entries = [item["entry"] for item in intake.county.entries() if item["kind"] == "emergency"]
    # The latest first, and then, in that order, those that are on.
    entries.sort(key=lambda entry: entry["since"], reverse=True)
    entries.sort(key=lambda entry: not entry["on"])
    return {"emergencies": [_emergency(entry, atlas) for entry in entries]}


def switch(intake: IntakeShell, call: Call, division: str, *, on: bool) -> Answer:
    """Switches a division with all below it to emergency mode, or back; again changes nothing.

    New reports there come under it at once, and the custodian brings the cases in flight over.
    """
    atlas, now, changed = intake.county.atlas(), intake.now, intake.clock.real()
    known_division(atlas, division)
    call.guard.narrowed(atlas, division)
    profile = profile_for(atlas.current, division, atlas.directory)
    if profile is None or (on and profile.emergency is None):
        which = "no profile's region" if profile is None else f"profile {profile.name}"
        raise Problem(
            409,
            f"{division} is in {which}, which has no emergency mode: "
            "add a part emergency to the profile (docs/profiles.md)",
        )

    def change(record: Record) -> Decision:
        return directory.switch(
            record.document,
            division,
            on=on,
            by=call.identity.subject,
            reason=call.body["reason"],
            directory=atlas.directory,
            now=now,
            changed=changed,
        )

    outcomes = intake.directory_fold.run([Work(directory.emergency_key(division), change)])
    entry = outcomes[0].result()
    intake.county.absorbed(outcomes)
    call.trail.about(emergency="begun" if on else "ended", number=entry["number"])
    log.info("emergency mode is switched", division=division, on=entry["on"], by=entry["by"])
    return Answer(_emergency(entry, atlas))


def _emergency(entry: dict[str, Any], atlas: Atlas) -> dict[str, Any]:
    """An emergency as people see it."""
    code = entry["division"]
    return {**entry, "id": f"{code}.{entry['number']}", "name": atlas.directory.name(code)}
