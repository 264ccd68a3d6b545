"""A desk over HTTP: its docket, and what its officers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.fold import Decision, Document, Record, Work
from services.bus.openapi import Shown
from services.bus.paging import PageQuery
from services.bus.problems import Problem
from services.bus.shell import Shell
from services.bus.web import Answer, Call
from services.dispatch import model
from services.dispatch.store import Docket
from services.grid import deadlines
from services.grid.atlas import Atlas
from services.grid.events.case import AnswerSchema, ExtensionSchema, RequestSchema
from services.grid.events.parts import (
    CODE,
    WORD,
    AcknowledgedSchema,
    AddressSchema,
    AssignedSchema,
    ClocksSchema,
    DeadlineSchema,
    GrantedSchema,
    InstantField,
    ResolutionSchema,
    SuspensionSchema,
    TokenSchema,
    public_text,
)
from services.grid.profile import Profile
from services.grid.scope import Scope
from services.grid.tokens import Address

Desk = Shell[Docket]
T = TypeVar("T")

READERS = ("officer", "lead", "operator", "auditor")
ACTORS = ("officer", "lead", "operator")
GRANTERS = ("lead", "operator")
MOVED_ON = {409: "The case has moved on (`held_by` has it now), or this is not possible in it."}
ANSWERED = {409: "It was answered otherwise already, or the same person asked for it."}


class DocketQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/cases``."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104", "status": "live", "limit": 20}

    division = fields.String(validate=CODE)
    status = fields.String(validate=validate.OneOf(["live", "ended"]))


class AcknowledgeBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/acknowledge`` (接单)."""

    example: ClassVar[dict[str, Any]] = {"note": "马上去看"}

    note = public_text(2000, lines=True, load_default="")


class ResolveBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/resolve`` (办结)."""

    example: ClassVar[dict[str, Any]] = {"outcome": "settled", "note": "已更换灯泡"}

    outcome = fields.String(
        required=True, validate=WORD, metadata={"description": "one of the profile's"}
    )
    note = public_text(2000, lines=True, load_default="")


class NoteBody(Schema):
    """Body of ``…/cases/{id}/resume``, ``…/extensions/{id}/grant`` and ``…/refuse``."""

    example: ClassVar[dict[str, Any]] = {"note": "材料已齐"}

    note = public_text(2000, lines=True, load_default="")


class SuspendBody(Schema):
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
    note = public_text(2000, lines=True, load_default="")


class ExtendBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/extend`` (延期)."""

    example: ClassVar[dict[str, Any]] = {"by": "2d", "reason": "配件还在路上"}

    by = fields.String(
        required=True,
        validate=validate.Length(1, 40),
        metadata={"description": "how much more, such as 2d or 3 working days"},
    )
    reason = public_text(500, required=True, shortest=1)


class ExtensionsQuery(PageQuery):
    """Filters of ``GET /v1/desks/{level}/extensions``."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104", "status": "asked", "limit": 20}

    division = fields.String(validate=CODE)
    status = fields.String(validate=validate.OneOf(["asked", "granted", "refused"]))


class OwnExtension(Shown, ExtensionSchema):
    """What more time the desk has asked for last, and what became of it."""

    sometimes = ("granted_by",)

    answer = fields.String(
        allow_none=True, validate=validate.OneOf(["granted", "refused", "applied"])
    )
    granted_by = fields.String(metadata={"description": "who answered"})


class RefusedRequest(Shown):
    """What the custodian refused last of what the desk asked for."""

    request = fields.Nested(RequestSchema)
    why = fields.String()


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
    status = fields.String(validate=validate.OneOf(["live", "ended"]))
    ended = fields.String(
        allow_none=True, validate=validate.OneOf(["resolved", "custody", "resolution"])
    )
    held_by = fields.Nested(AddressSchema, allow_none=True)
    refused = fields.Nested(RefusedRequest, allow_none=True)


class EntriesPage(Shown):
    """A page of the docket."""

    cases = fields.List(fields.Nested(EntryShown))
    next = fields.String(allow_none=True)


class ExtensionShown(Shown, ExtensionSchema):
    """What the level below asks for."""

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
    return {"cases": [shown(record.document or {}) for record in records], "next": cursor}


def acknowledge(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer accepts a case."""
    record = _latest(desk, call, level, case)
    return _acted(desk, call, record, model.acknowledge, call.body["note"])


def resolve(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """An officer settles a case, with one of the outcomes of its profile."""
    record, body = _latest(desk, call, level, case), call.body
    outcome, allowed = body["outcome"], _profile(desk, record).outcomes
    if outcome not in allowed:
        said = f"{outcome!r} is not in the profile: write {', '.join(allowed)}"
        raise problems.invalid({"outcome": said})
    return _acted(desk, call, record, model.resolve, outcome, body["note"])


def suspend(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """A case waits for something, for a reason that its profile knows."""
    record, body = _latest(desk, call, level, case), call.body
    reason, allowed, longest = body["reason"], _profile(desk, record).suspensions, None
    if reason not in allowed:
        known = f"write {', '.join(allowed)}" if allowed else "it lets no case wait"
        raise problems.invalid({"reason": f"{reason!r} is not in the profile: {known}"})
    if body["longest"] is not None:
        longest = _read("longest", body["longest"], deadlines.duration)
        if longest > allowed[reason].longest:
            raise problems.invalid({"longest": f"for {reason} the profile allows less"})
    return _acted(desk, call, record, model.suspend, reason, body["note"], longest=longest)


def resume(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """A case waits no longer."""
    record = _latest(desk, call, level, case)
    return _acted(desk, call, record, model.resume, call.body["note"])


def extend(desk: Desk, call: Call, level: str, case: str) -> Answer:
    """Asks the level above for more time."""
    record, body = _latest(desk, call, level, case), call.body
    more, rule = _read("by", body["by"], deadlines.extension), _profile(desk, record).extension
    if rule is not None:
        most = rule.longest
        if more.form is not most.form:
            raise problems.invalid({"by": f"write it as the profile does: {most.text} at most"})
        if more.least > most.least:
            raise problems.invalid({"by": f"the profile allows {most.text} at once"})
    return _acted(desk, call, record, model.ask_extension, more.text, body["reason"])


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
    by, note, atlas, now = call.identity.subject, call.body["note"], desk.county.atlas(), desk.now

    def change(record: Record) -> Decision:
        if record.document is None:
            raise Problem(404, f"the {level} desk was not asked for an extension {identity}")
        call.guard.must_reach(atlas, _asked_of(record.document, level, atlas))
        return model.answer_extension(
            record.document, by, note, granted=granted, atlas=atlas, now=now
        )

    answered = desk.act(Work(model.extension_key(identity), change), call.trail)
    return Answer(extension_shown(answered))


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
    """Runs an action of the model on an entry, and shows the entry."""
    by, atlas, now = call.identity.subject, desk.county.atlas(), desk.now

    def change(record: Record) -> Decision:
        return act(_arrived(record), by, *said, atlas=atlas, now=now, **more)

    return Answer(shown(desk.act(Work(record.key, change), call.trail)))


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
        "status": entry["status"],
        "ended": entry["ended"],
        "held_by": entry["held"] and entry["held"]["address"],
        "refused": entry["refused"],
    }


def _latest(desk: Desk, call: Call, level: str, case: str) -> Record:
    """The entry of the last time that the case came to this desk; its address never changes."""
    _serves(desk, level)
    latest = desk.store.latest(case)
    if latest is None:
        raise Problem(404, f"case {case} has not come to the {level} desk")
    address = Address.of(_arrived(latest)["state"]["address"])
    call.guard.must_reach(desk.county.atlas(), address)
    return latest


def _part(desk: Desk, call: Call, level: str) -> Scope:
    """The part of this desk's work that a list is about."""
    _serves(desk, level)
    return call.guard.narrowed(desk.county.atlas(), call.query.get("division"), level)


def _asked_of(document: Document, level: str, atlas: Atlas) -> Address:
    """Whom the level below asked for more time: this desk, where it is above the holder."""
    division = document["asked_in"]["address"]["division"]
    above = atlas.directory.ancestor(division, level)
    return Address(level, above.code if above else division)


def _serves(desk: Desk, level: str) -> None:
    here = desk.config.level
    if level != here:
        raise Problem(404, f"this is the {here} desk: ask the {level} desk's own address")


def _arrived(record: Record) -> Document:
    if record.document is None or record.document["state"] is None:
        raise Problem(404, "the case has not arrived here yet: only its release is known")
    return record.document
