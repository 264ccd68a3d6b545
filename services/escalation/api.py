"""The custodian over HTTP: every deadline of a case, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from marshmallow import Schema, fields, validate

from services.bus import access, problems
from services.bus.desk_acts import CustodyShown, SupervisionShown
from services.bus.errors import Refused, Retry
from services.bus.fold import Decision, Document, Outcome, Record, Work
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.versions import etag, on_what_was_seen, tagged
from services.bus.web import Answer, Call
from services.escalation import model
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.escalation.switching import is_behind, tried, works
from services.grid import whistles
from services.grid.clock import Instant, instant, seconds_between
from services.grid.events.parts import (
    CODE,
    AddressSchema,
    ClocksSchema,
    DeadlineSchema,
    Flag,
    InstantField,
    SuspensionSchema,
)
from services.grid.problems import not_among
from services.grid.scope import Scope
from services.grid.tokens import Address

READERS = ("officer", "lead", "operator", "auditor")
OPERATORS = ("operator",)
INSPECTORS = ("operator", "auditor")
_ABOVE = (
    "a case is supervised from above who holds it: from a higher level, or of a unit from its "
    "level's desk"
)


class MigrationBody(Schema):
    """Body of ``POST /v1/migrations``; ``after`` is ``next`` of the page before."""

    example: ClassVar[dict[str, Any]] = {
        "to": "qionghai@2b5e1c7d9f04",
        "division": "469002104",
        "dry_run": True,
        "limit": 100,
    }

    to = fields.String(
        required=True,
        validate=validate.Length(1, 80),
        metadata={"description": "a version of a profile"},
    )
    division = fields.String(validate=CODE, load_default=None, allow_none=True)
    dry_run = Flag(load_default=True)
    after = fields.String(load_default="", validate=validate.Length(max=200))
    limit = fields.Integer(strict=True, load_default=100, validate=validate.Range(1, 500))


class EmergencyQuery(Schema):
    """Query of ``GET /v1/emergencies/{division}``; ``after`` is ``next`` of the page before.

    A page looks at ``limit`` cases in flight, and shows those that would change.
    """

    example: ClassVar[dict[str, Any]] = {"on": True, "limit": 100}

    on = fields.Boolean(load_default=True, truthy={"true", True}, falsy={"false", False})
    after = fields.String(load_default="", validate=validate.Length(max=200))
    limit = fields.Integer(load_default=1000, validate=validate.Range(1, 1000))


class Placed(Shown):
    """Who holds a case, and until when."""

    address = fields.Nested(AddressSchema)
    deadlines = fields.List(fields.Nested(DeadlineSchema))


class Migrated(Shown):
    """What changes for a case; the versions of its profile."""

    case = fields.String()
    from_ = fields.String(data_key="from")
    to = fields.String()
    before = fields.Nested(Placed)
    after = fields.Nested(Placed)


class NotMigrated(Shown):
    """A case that stays under its version, and why."""

    case = fields.String()
    why = fields.String()


class MigrationShown(Shown):
    """A page of cases: what changes for each."""

    to = fields.String()
    dry_run = fields.Boolean()
    cases = fields.List(fields.Nested(Migrated))
    refused = fields.List(fields.Nested(NotMigrated))
    next = fields.String(allow_none=True)


class Switched(Shown):
    """What a switch changes for a case; the emergencies (战时机制) whose rules hold for it."""

    case = fields.String()
    from_ = fields.String(data_key="from", allow_none=True)
    to = fields.String(allow_none=True)
    before = fields.Nested(Placed)
    after = fields.Nested(Placed)


class SwitchShown(Shown):
    """A page of cases: what a switch of emergency mode would change for each."""

    division = fields.String()
    on = fields.Boolean()
    cases = fields.List(fields.Nested(Switched))
    refused = fields.List(fields.Nested(NotMigrated))
    next = fields.String(allow_none=True)


class Reached(Shown):
    """Whom a deadline would reach if it passed now."""

    address = fields.Nested(AddressSchema)
    officers = fields.List(fields.String())
    tell = fields.List(fields.String())


class DeadlineRow(Shown, DeadlineSchema, AddressSchema):
    """A deadline that the case ever had, whose it was, and what became of it."""

    sometimes = (
        "of",
        "at",
        "unit",
        "profile",
        "emergency",
        "fired_at",
        "lateness_seconds",
        "reaches",
    )

    round = fields.Integer()
    hop = fields.Integer()
    profile = fields.String()
    emergency = fields.String(allow_none=True)
    status = fields.String(validate=validate.OneOf(["armed", "fired", "met", "moved", "void"]))
    fired_at = InstantField()
    lateness_seconds = fields.Float(metadata={"description": "real seconds"})
    reaches = fields.Nested(Reached)


class DeadlinesShown(Shown):
    """Each past and coming deadline of a case with its rule, and who holds it."""

    case = fields.String()
    custody = fields.Nested(CustodyShown)
    profile = fields.String()
    clocks = fields.Nested(ClocksSchema)
    suspension = fields.Nested(SuspensionSchema, allow_none=True)
    next_due = InstantField(allow_none=True)
    supervised = fields.Nested(SupervisionShown, allow_none=True)
    late_custody = fields.Boolean()
    follows = fields.String(
        allow_none=True, metadata={"description": "the older case that it was merged into (并案)"}
    )
    deadlines = fields.List(fields.Nested(DeadlineRow))


class Asked(Shown):
    """The number that ``answered`` of ``GET`` reaches when the pass is done."""

    asked = fields.Integer()


def _counts() -> fields.Dict:
    return fields.Dict(keys=fields.String(), values=fields.Integer())


class RunningPass(Shown):
    """How far the present pass is."""

    sometimes = ("stage", "compared")

    by = fields.String()
    started = InstantField()
    stage = fields.String()
    compared = _counts()


class FoundShown(Shown):
    """One thing that was not as it should be; the tokens that the two had, as text."""

    case = fields.String()
    kind = fields.String()
    level = fields.String(allow_none=True)
    custodian = fields.String(allow_none=True)
    other = fields.String(allow_none=True)
    repaired = fields.Boolean()


class LastPass(Shown):
    """What the last pass came to."""

    outcome = fields.String()
    started = InstantField()
    finished = InstantField()
    seconds = fields.Float()
    compared = _counts()
    found = _counts()
    repaired = _counts()
    explained = fields.Integer()
    not_asked = fields.Dict(keys=fields.String(), values=fields.String())
    findings = fields.List(fields.Nested(FoundShown))


class ReconciliationShown(Shown):
    """The present pass and the last one; times are real ones."""

    asked = fields.Integer()
    answered = fields.Integer()
    next = InstantField(allow_none=True)
    running = fields.Nested(RunningPass, allow_none=True)
    last = fields.Nested(LastPass, allow_none=True)


def migrate(custodian: CustodianShell, markers: Markers, call: Call) -> dict[str, Any]:
    """One page of cases in flight under other versions of a profile: what changes for each.

    Only with ``dry_run: false`` it is done.
    """
    body, atlas, now = call.body, custodian.county.atlas(), custodian.now
    part = call.guard.narrowed(atlas, body["division"])
    if is_behind(custodian, markers):
        raise Retry("the custodian is behind with its queue")
    version = body["to"]
    if version not in atlas.profiles:
        raise problems.invalid({"to": not_among(version, tuple(atlas.profiles))})
    if body["division"] is not None and atlas.directory.division(body["division"]) is None:
        raise problems.invalid({"division": "the directory has no such division"})
    name = atlas.profile(version).name
    found = custodian.store.under(name, version, body["after"], body["limit"])
    wanted = [key for key, place in found if part.covers_division(place, atlas)]

    def change(record: Record) -> Decision:
        try:
            return model.migrate(record, version, atlas, now)
        except (LookupError, ValueError) as error:
            # One case that can't be brought over must not hold up its page.
            raise Refused(f"it can't be brought over: {error}") from error

    asked = [Work(key, change) for key in wanted]
    outcomes = tried(custodian, asked) if body["dry_run"] else custodian.fold.run(asked)
    custodian.ring()
    moved = [] if body["dry_run"] else _done(asked, outcomes)
    call.trail.about(*moved, to=version, division=part.division, dry_run=body["dry_run"])
    return {
        "to": version,
        "dry_run": body["dry_run"],
        **_told(asked, outcomes),
        "next": found[-1][0] if len(found) == body["limit"] else None,
    }


def emergency(custodian: CustodianShell, call: Call, division: str) -> dict[str, Any]:
    """One page of what a switch of a division to emergency mode, or back, would change.

    Nothing is done: intake switches (``POST /v1/emergencies/{division}/begin``).
    """
    query, atlas = call.query, custodian.county.atlas()
    wrong = atlas.directory.check_code(division)
    if wrong is not None:
        raise problems.invalid({"division": wrong})
    part = call.guard.narrowed(atlas, division)
    atlas = atlas.switched(division, on=query["on"])
    page = custodian.store.modes(query["after"], query["limit"], range(model.SHARDS))
    cases = [
        case
        for case, facts in page
        if part.covers_division(facts["division"], atlas) and model.switches(facts, atlas)
    ]
    asked = works(cases, atlas, custodian.now)
    return {
        "division": division,
        "on": query["on"],
        **_told(asked, tried(custodian, asked)),
        "next": page[-1][0] if len(page) == query["limit"] else None,
    }


def _done(works: Sequence[Work], outcomes: Sequence[Outcome]) -> list[str]:
    return [work.key for work, outcome in zip(works, outcomes, strict=True) if outcome.answer]


def _told(works: Sequence[Work], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The cases that change, and those that can't now."""
    return {
        "cases": [outcome.answer for outcome in outcomes if outcome.answer],
        "refused": [
            {"case": work.key, "why": str(outcome.error)}
            for work, outcome in zip(works, outcomes, strict=True)
            if outcome.error
        ],
    }


def supervise(custodian: CustodianShell, call: Call, case: str) -> Answer:
    """Somebody above the holder wants a case to be supervised."""
    by, key = call.identity.subject, call.idempotency_key
    said = call.body["reason"], call.body["attachments"]
    atlas, now = custodian.county.atlas(), custodian.now

    def change(record: Record) -> Decision:
        document = record.document
        if document is None:
            raise Problem(404, f"the custodian has not heard of case {case}")
        held_by = document["state"]["address"]
        call.guard.must_reach(atlas, Address.of(held_by))
        if not _is_above(call.identity.scope, held_by):
            raise access.forbidden(call.identity, _ABOVE, held_by=held_by)
        return on_what_was_seen(
            call,
            lambda: shown(custodian, document),
            lambda: model.supervise(document, by, *said, atlas=atlas, now=now, key=key),
        )

    document = custodian.act(Work(case, change), call.trail)
    custodian.ring()
    headers = {"ETag": etag(shown(custodian, document))}
    return Answer({"case": case, **_custody(document)}, headers=headers)


def _is_above(scope: Scope, held_by: dict[str, Any]) -> bool:
    """Whether somebody who reaches the holder is above it: a level's desk is above its units."""
    higher = scope.level != held_by["level"] or held_by["unit"] is not None
    return higher and scope.unit is None


def deadlines(custodian: CustodianShell, call: Call, case: str) -> Answer:
    """Each past and coming deadline with its rule, and who holds the case."""
    record = custodian.store.read([case]).get(case)
    if record is None or record.document is None:
        raise Problem(404, f"the custodian has not heard of case {case}")
    document, atlas = record.document, custodian.county.atlas()
    address = Address.of(document["state"]["address"])
    called = map(whistles.address, whistles.standing(document["state"]))
    call.guard.must_reach(atlas, *address.where(document["facts"]["division"]), *called)
    return tagged(shown(custodian, document))


def shown(custodian: CustodianShell, document: Document) -> dict[str, Any]:
    """What the custodian shows of a case: its tag is that of who acts on the case here."""
    atlas = custodian.county.atlas()
    rows = model.explain(document)
    # A profile that has not come yet says nobody.
    known = atlas.knows(document["facts"])
    for row in rows:
        if row["status"] == "armed" and known:
            row["reaches"] = model.reaches(document, row, atlas, custodian.now)
        if "fired_at" in row:
            late = seconds_between(Instant(row["due"]), Instant(row["fired_at"]))
            row["lateness_seconds"] = max(0.0, custodian.clock.real_seconds(late))
    return {
        "case": document["case"],
        **_custody(document),
        "profile": document["facts"]["profile"],
        "clocks": document["state"]["clocks"],
        "suspension": document["state"].get("suspension"),
        "next_due": document["next_due"],
        "late_custody": document["late_custody"],
        "follows": document["facts"].get("follows"),
        "deadlines": rows,
    }


def _custody(document: Document) -> dict[str, Any]:
    """Who holds a case, and whether it is supervised: by whom, how often, when again."""
    supervision = document["supervision"]
    told = None
    if supervision is not None:
        wanted = [
            {name: item[name] for name in ("by", "reason", "round")}
            for item in supervision.get("asked", ())
        ]
        told = {**{name: supervision[name] for name in ("times", "last", "due")}, "asked": wanted}
    return {
        "custody": {name: document["state"][name] for name in ("address", "token")},
        "supervised": told,
    }


def reconcile(custodian: CustodianShell, call: Call) -> dict[str, Any]:
    """Asks for a pass; ``answered`` of ``GET`` reaches ``asked`` when it is done."""
    asked = custodian.passes.request()
    call.trail.about(asked=asked)
    return {"asked": asked}


def reconciliation(custodian: CustodianShell, _call: Call) -> dict[str, Any]:
    """The present pass and the last one; its times are real ones, of the database's clock."""
    known = custodian.passes.look()
    running = known.get("holder") is not None and {
        "by": known["holder"],
        "started": _when(known["started"]),
        **known["progress"],
    }
    last = known.get("last")
    return {
        "asked": known.get("asked", 0),
        "answered": known.get("answered", 0),
        "next": _when(known.get("next")),
        "running": running or None,
        "last": last
        and {
            **last,
            "started": _when(last["started"]),
            "finished": _when(last["finished"]),
            "seconds": (last["finished"] - last["started"]).total_seconds(),
        },
    }


def _when(at: datetime | None) -> Instant | None:
    return None if at is None else instant(at)
