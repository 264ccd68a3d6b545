"""The custodian over HTTP: every deadline of a case, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.errors import Refused, Retry
from services.bus.fold import Decision, Outcome, Record, Work
from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.escalation import model
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.escalation.switching import is_behind, tried, works
from services.grid.clock import Instant, instant, seconds_between
from services.grid.events.parts import CODE
from services.grid.problems import not_among
from services.grid.tokens import Address

READERS = ("officer", "lead", "operator", "auditor")
OPERATORS = ("operator",)
INSPECTORS = ("operator", "auditor")


class MigrationBody(Schema):
    """Body of ``POST /v1/migrations``; ``after`` is ``next`` of the page before."""

    to = fields.String(required=True, validate=validate.Length(1, 80))
    division = fields.String(validate=CODE, load_default=None, allow_none=True)
    dry_run = fields.Boolean(load_default=True)
    after = fields.String(load_default="", validate=validate.Length(max=200))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 500))


class EmergencyQuery(Schema):
    """Query of ``GET /v1/emergencies/{division}``; ``after`` is ``next`` of the page before.

    A page looks at ``limit`` cases in flight, and shows those that would change.
    """

    on = fields.Boolean(load_default=True)
    after = fields.String(load_default="", validate=validate.Length(max=200))
    limit = fields.Integer(load_default=1000, validate=validate.Range(1, 1000))


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


def deadlines(custodian: CustodianShell, call: Call, case: str) -> dict[str, Any]:
    """Each past and coming deadline with its rule, and who holds the case."""
    record = custodian.store.read([case]).get(case)
    if record is None or record.document is None:
        raise Problem(404, f"the custodian has not heard of case {case}")
    document, atlas = record.document, custodian.county.atlas()
    address = Address.of(document["state"]["address"])
    call.guard.must_reach(atlas, *address.where(document["facts"]["division"]))
    rows = model.explain(document)
    # A profile that has not come yet says nobody.
    known = atlas.knows(document["facts"])
    for row in rows:
        if row["status"] == "armed" and known:
            row["reaches"] = model.reaches(document, row, atlas)
        if "fired_at" in row:
            late = seconds_between(Instant(row["due"]), Instant(row["fired_at"]))
            row["lateness_seconds"] = max(0.0, custodian.clock.real_seconds(late))
    return {
        "case": case,
        "custody": {name: document["state"][name] for name in ("address", "token")},
        "profile": document["facts"]["profile"],
        "clocks": document["state"]["clocks"],
        "suspension": document["state"].get("suspension"),
        "next_due": document["next_due"],
        "supervised": document["supervision"]
        and {name: document["supervision"][name] for name in ("times", "last", "due")},
        "late_custody": document["late_custody"],
        "deadlines": rows,
    }


def reconcile(custodian: CustodianShell, call: Call) -> Answer:
    """Asks for a pass; ``answered`` of ``GET`` reaches ``asked`` when it is done."""
    asked = custodian.passes.request()
    call.trail.about(asked=asked)
    return Answer({"asked": asked}, 202)


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
