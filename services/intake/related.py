"""Cases that have to do with each other, over HTTP: links, and what may be reported twice."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.fold import Decision, Record, Work
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.versions import etag, on_what_was_seen
from services.bus.web import Answer, Call
from services.grid.events.parts import AddressSchema, InstantField
from services.grid.tokens import Address
from services.intake import duplicates, linking
from services.intake.api import STATUSES, readable, shown
from services.intake.shell import IntakeShell

_COMPARED = 200
"""How many cases of the same category are compared, before and after a report."""
_COMPARED_BESIDES = 100
"""And how many of whatever category."""


class DuplicatesQuery(Schema):
    """Query of ``GET /v1/cases/{id}/duplicates``."""

    example: ClassVar[dict[str, Any]] = {"limit": 5}

    limit = fields.Integer(load_default=10, validate=validate.Range(1, 50))


class LikenessShown(Shown):
    """Why a case is shown: ``words`` 0 to 1, the ``place`` of the other, ``hours`` apart."""

    words = fields.Float()
    place = fields.String(validate=validate.OneOf(["same", "within", "beside"]))
    hours = fields.Float()
    same_category = fields.Boolean()


class DuplicateShown(Shown):
    """A case that may be the same matter; of two, the older one would be kept."""

    id = fields.String()
    tracking = fields.String()
    title = fields.String()
    status = fields.String(validate=validate.OneOf(STATUSES))
    category = fields.String()
    urgency = fields.String()
    division = fields.String()
    address = fields.Nested(AddressSchema)
    reported_at = InstantField()
    follows = fields.String(allow_none=True)
    score = fields.Float(metadata={"description": "0 to 1"})
    why = fields.Nested(LikenessShown)


class DuplicatesShown(Shown):
    """What may be the same matter, the most alike first."""

    case = fields.String()
    within_seconds = fields.Float(metadata={"description": "how far apart they were reported"})
    duplicates = fields.List(fields.Nested(DuplicateShown))


def link(intake: IntakeShell, call: Call, case: str, *, on: bool) -> Answer:
    """Links two cases that the caller may read, or no longer."""
    other, by = call.body["case"], call.identity.subject
    if other == case:
        raise problems.invalid({"case": "is the case itself: name another"})
    document = readable(intake, call, case)
    try:
        another = readable(intake, call, other)
    except Problem as problem:
        if problem.status != 404:
            raise
        raise problems.invalid({"case": f"there is no case {other}: write another's id"}) from None
    if on:
        # Only one of them decides, and each shows it.
        linking.must_have_room(document, other)
        linking.must_have_room(another, case)
    first, second = linking.decides(case, other)
    atlas, now = intake.county.atlas(), intake.now
    said = linking.noted(call.body)

    def change(record: Record) -> Decision:
        latest = record.document or {}
        seen = latest if case == first else document
        decide = partial(linking.link, latest, second, by, on=on, said=said, atlas=atlas, now=now)
        return on_what_was_seen(call, lambda: shown(seen, atlas), decide)

    decided = intake.act(Work(first, change), call.trail)
    link = decided.get("links", {}).get(second)
    now_so = {first: decided}
    if link is not None:
        # At once; should this process die now, the event does the same.
        taken = linking.taken(second, first, link, {"by": by, **said}, atlas=atlas, now=now)
        now_so[second] = intake.act(taken, call.trail)
    call.trail.about(case, other, linked=on)
    found = now_so.get(case, document)
    headers = {"ETag": etag(shown(found, atlas))}
    return Answer({"id": case, "linked": linking.linked(found)}, headers=headers)


def alike(intake: IntakeShell, call: Call, case: str) -> dict[str, Any]:
    """What may be the same matter as a case, among what the caller may read."""
    document, atlas = readable(intake, call, case), intake.county.atlas()
    facts, directory = document["facts"], atlas.directory
    within = intake.county.rules_for(facts).duplicates.within
    around = duplicates.around(facts["division"], directory)
    near = around, facts["reported_at"], within
    # So that a flood of other matters does not hide those of its own category.
    alike = intake.store.like(*near, _COMPARED, facts["category"])
    others = {item["case"]: item for item in [*alike, *intake.store.like(*near, _COMPARED_BESIDES)]}
    found = []
    for other in others.values():
        address = Address.of(other["state"]["address"])
        there = address.where(other["facts"]["division"])
        if other["case"] == case or not call.guard.reaches(atlas, *there):
            continue
        like = duplicates.likeness(document, other, within, directory)
        if like.suspicious:
            found.append((like, other))
    found.sort(key=lambda pair: (-pair[0].score, pair[1]["case"]))
    listed = [_shown(like, other) for like, other in found[: call.query["limit"]]]
    return {"case": case, "within_seconds": within, "duplicates": listed}


def _shown(like: duplicates.Likeness, other: dict[str, Any]) -> dict[str, Any]:
    facts = other["facts"]
    return {
        "id": other["case"],
        "status": other["status"],
        **{name: facts[name] for name in ("tracking", "title", "category", "urgency", "division")},
        "address": other["state"]["address"],
        "reported_at": facts["reported_at"],
        "follows": facts.get("follows"),
        "score": like.score,
        "why": {name: getattr(like, name) for name in LikenessShown._declared_fields},
    }
