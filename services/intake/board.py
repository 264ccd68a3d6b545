"""The village's notice board (公示): what was reported and how it ended, for everybody to read.

Which cases are shown, and whether any are, the division's present profile says (its part
``public``). Nothing on it points to a person: no title, no text, no place below a village, no time
of day; nor does its cursor.
"""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.fold import Document
from services.bus.openapi import Shown
from services.bus.paging import Cursor
from services.bus.problems import Problem
from services.bus.versions import tagged
from services.bus.web import Answer, Call
from services.grid.atlas import Atlas
from services.grid.calendars import local_date
from services.grid.clock import Instant, plus
from services.grid.directory import DivisionError
from services.grid.events.parts import CODE, WORD
from services.grid.problems import not_among
from services.grid.profile import Profile, profile_for
from services.grid.profile_rules import Board
from services.grid.tokens import Stage
from services.intake.shell import IntakeShell
from services.intake.store import BoardFilter

CACHE_SECONDS = 60
_VILLAGE_DIGITS = 12
_DAY_SECONDS = 86400.0


class BoardQuery(Schema):
    """Query of ``GET /v1/public/cases``."""

    division = fields.String(required=True, validate=CODE)
    category = fields.String(validate=WORD, load_default=None)
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 100))
    cursor = fields.String(
        load_default=None,
        validate=validate.Length(1, 400),
        metadata={"description": "`next` of the page before, as it is"},
    )

    example: ClassVar[dict[str, Any]] = {
        "division": "469002104214",
        "category": "facility",
        "limit": 20,
    }


class Place(Shown):
    """A village, or a division above it."""

    code = fields.String()
    name = fields.String()


class Title(Shown):
    """A word of the profile, as people read it."""

    zh = fields.String()
    en = fields.String()


class BoardCase(Shown):
    """A case that has ended, without anything that points to a person."""

    place = fields.Nested(Place)
    category = fields.String()
    category_title = fields.Nested(Title)
    reported_on = fields.Date(metadata={"description": "a day, in the county's time zone"})
    ended_on = fields.Date(metadata={"description": "the day on which it was resolved"})
    days = fields.Integer(metadata={"description": "from the one to the other"})
    outcome = fields.String()
    outcome_title = fields.Nested(Title, allow_none=True)
    status = fields.String(validate=validate.OneOf(["resolved", "closed"]))
    satisfied = fields.Boolean(
        allow_none=True, metadata={"description": "what the reporter said of it, null if nothing"}
    )


class BoardPage(Shown):
    """A page of a notice board (公示), the last resolved first.

    It may have fewer cases than ``limit``; the last page has no ``next``.
    """

    division = fields.Nested(Place)
    cases = fields.List(fields.Nested(BoardCase))
    next = fields.String(allow_none=True)


def board(intake: IntakeShell, call: Call) -> Answer:
    """A page of the notice board of a village, or of all villages of a township or county."""
    query, atlas = call.query, intake.county.atlas()
    profile, rule = _opened(atlas, query["division"])
    categories = rule.categories
    if query["category"] is not None:
        if query["category"] not in categories:
            raise problems.invalid({"category": not_among(query["category"], categories)})
        categories = (query["category"],)
    where = filter_of(atlas, profile, rule, query["division"], intake.now)
    where = where._replace(categories=categories)
    cursor = None if query["cursor"] is None else _cursor(intake, query["cursor"])
    records, following = intake.store.ended(where, cursor, query["limit"])
    documents = [record.document or {} for record in records]
    # What happened elsewhere and was only sent here is on the board of where it happened.
    cases = [
        _shown(document, profile, atlas)
        for document in documents
        if atlas.directory.within(document["facts"]["division"], query["division"])
    ]
    sealed = intake.cursors.text(following)
    return tagged({"division": _place(query["division"], atlas), "cases": cases, "next": sealed})


def _cursor(intake: IntakeShell, text: str) -> Cursor:
    """The cursor that an earlier page handed out."""
    try:
        return intake.cursors.read(text)
    except ValueError as error:
        said = f"{error}: use next of an earlier answer as it is, or leave it out"
        raise problems.invalid({"cursor": said}) from error


def _opened(atlas: Atlas, code: str) -> tuple[Profile, Board]:
    """The profile that opens the board of a division.

    :raises Problem: the division is unknown, below a village, or its profile opens none.
    """
    try:
        atlas.directory.known(code)
    except DivisionError as error:
        raise problems.invalid({"division": str(error)}) from error
    if len(code) > _VILLAGE_DIGITS:
        said = f"the board is a village's: write the village, {code[:_VILLAGE_DIGITS]}"
        raise problems.invalid({"division": said})
    profile = profile_for(atlas.current, code, atlas.directory)
    if profile is None or profile.board is None:
        raise Problem(404, f"{code} has no notice board: its profile has no part public")
    return profile, profile.board


def filter_of(atlas: Atlas, profile: Profile, rule: Board, code: str, now: Instant) -> BoardFilter:
    """What a profile opens of a division."""
    return BoardFilter(
        division=code,
        without=_of_others(atlas, profile, code),
        statuses=tuple(stage.word for stage in _shown_stages(rule)),
        categories=rule.categories,
        since=plus(now, -rule.days * _DAY_SECONDS),
    )


def opens(document: Document, atlas: Atlas, now: Instant) -> Profile | None:
    """The profile whose board shows a case, if any does."""
    place, resolution = document["facts"]["division"], document["state"]["resolution"]
    profile = profile_for(atlas.current, place, atlas.directory)
    if profile is None or profile.board is None or resolution is None:
        return None
    where = filter_of(atlas, profile, profile.board, profile.region, now)
    shown = (
        document["status"] in where.statuses
        and document["facts"]["category"] in where.categories
        and resolution["at"] >= where.since
    )
    return profile if shown else None


def _of_others(atlas: Atlas, profile: Profile, code: str) -> tuple[str, ...]:
    """Parts of a division that have a profile of their own: they open their own boards."""
    regions = {other.region for other in atlas.current} - {profile.region}
    return tuple(sorted(region for region in regions if atlas.directory.within(region, code)))


def _shown_stages(rule: Board) -> tuple[Stage, ...]:
    """What a case must have come to for the board to show it."""
    return (Stage.CLOSED,) if rule.closed else (Stage.RESOLVED, Stage.CLOSED)


def _shown(document: Document, profile: Profile, atlas: Atlas) -> dict[str, Any]:
    facts, resolution = document["facts"], document["state"]["resolution"]
    zone = ZoneInfo(profile.timezone)
    reported, ended = (
        local_date(Instant(at), zone) for at in (facts["reported_at"], resolution["at"])
    )
    own = atlas.rules_for(facts) if atlas.knows(facts) else profile
    outcome = resolution["outcome"]
    return {
        "place": _place(village(facts["division"], atlas), atlas),
        "category": facts["category"],
        "category_title": profile.categories[facts["category"]],
        "reported_on": reported.isoformat(),
        "ended_on": ended.isoformat(),
        "days": _days(reported, ended),
        "outcome": outcome,
        "outcome_title": own.outcomes.get(outcome),
        "status": document["status"],
        "satisfied": _satisfied(document),
    }


def _days(reported: date, ended: date) -> int:
    # A desk's clock may be behind ours.
    return max(0, (ended - reported).days)


def _satisfied(document: Document) -> bool | None:
    """What the reporter said of the last round; None if nothing."""
    given = document.get("feedback")
    now = given is not None and given["round"] == document["state"]["token"]["round"]
    return bool(given["satisfied"]) if given is not None and now else None


def village(code: str, atlas: Atlas) -> str:
    """The division itself, or the village that it lies in: no finer place is shown."""
    above = (place.code for place in atlas.directory.ancestors(code))
    return next((found for found in above if len(found) <= _VILLAGE_DIGITS), code[:_VILLAGE_DIGITS])


def _place(code: str, atlas: Atlas) -> dict[str, str]:
    return {"code": code, "name": atlas.directory.name(code)}
