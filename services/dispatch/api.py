"""A desk over HTTP: its docket, and what its officers do."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.fold import Decision, Document, Record, Work
from services.bus.paging import PageQuery
from services.bus.problems import Problem
from services.bus.shell import Shell
from services.bus.web import Answer, Call
from services.dispatch import model
from services.dispatch.store import Docket
from services.grid.events.parts import CODE, WORD, public_text

Desk = Shell[Docket]

READERS = ("officer", "lead", "operator", "auditor")
ACTORS = ("officer", "lead", "operator")


class DocketQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/cases``."""

    division = fields.String(validate=CODE)
    status = fields.String(validate=validate.OneOf(["live", "ended"]))


class AcknowledgeBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/acknowledge`` (接单)."""

    note = public_text(2000, lines=True, load_default="")


class ResolveBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/resolve`` (办结)."""

    outcome = fields.String(required=True, validate=WORD)
    note = public_text(2000, lines=True, load_default="")


def entries(desk: Desk, call: Call, level: str) -> dict[str, Any]:
    """A page of the docket, the latest arrival first."""
    _serves(desk, level)
    query = call.query
    records, cursor = desk.store.entries(
        query.get("division"), query.get("status"), query["cursor"], query["limit"]
    )
    return {"cases": [shown(record.document or {}) for record in records], "next": cursor}


def acknowledge(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer accepts a case."""
    record = _latest(desk, level, case)
    by, note, atlas, now = call.identity.subject, call.body["note"], desk.county.atlas(), desk.now

    def change(record: Record) -> Decision:
        return model.acknowledge(_arrived(record), by, note, atlas=atlas, now=now)

    return Answer(shown(desk.act(Work(record.key, change))))


def resolve(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer settles a case, with one of the outcomes of its profile."""
    record = _latest(desk, level, case)
    by, note, atlas, now = call.identity.subject, call.body["note"], desk.county.atlas(), desk.now
    outcome = call.body["outcome"]
    allowed = desk.county.profile(_arrived(record)["facts"]["profile"]).outcomes
    if outcome not in allowed:
        said = f"{outcome!r} is not in the profile: write {', '.join(allowed)}"
        raise problems.invalid({"outcome": said})

    def change(record: Record) -> Decision:
        return model.resolve(_arrived(record), by, outcome, note, atlas=atlas, now=now)

    return Answer(shown(desk.act(Work(record.key, change))))


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
        "status": entry["status"],
        "ended": entry["ended"],
        "held_by": entry["held"] and entry["held"]["address"],
        "refused": entry["refused"],
    }


def _latest(desk: Desk, level: str, case: str) -> Record:
    """The entry of the last time that the case came to this desk."""
    _serves(desk, level)
    latest = desk.store.latest(case)
    if latest is None:
        raise Problem(404, f"case {case} has not come to the {level} desk")
    return latest


def _serves(desk: Desk, level: str) -> None:
    here = desk.config.level
    if level != here:
        raise Problem(404, f"this is the {here} desk: ask the {level} desk's own address")


def _arrived(record: Record) -> Document:
    if record.document is None or record.document["state"] is None:
        raise Problem(404, "the case has not arrived here yet: only its release is known")
    return record.document
