"""Requests of Open311: reports come in, and are shown as far as whoever asks may see them.

A request's id is the case's. Without a key it shows what the division's notice board would
(:mod:`services.intake.board`): that an ended case was, in which village and on which days; with
the key of a system its own cases, whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from marshmallow import ValidationError

from services.bus import access, problems
from services.bus.auth import ANONYMOUS
from services.bus.errors import Refused
from services.bus.fold import Document
from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.grid.atlas import Atlas
from services.grid.calendars import local_date
from services.grid.clock import Instant, instant, plus, seconds_between
from services.grid.directory import Division, DivisionError
from services.grid.events.envelope import NAMESPACE
from services.grid.profile import Profile, profile_for
from services.grid.tokens import Address, Stage
from services.intake import board, model
from services.intake.api import ReportBody
from services.intake.door import DoorShell, in_time
from services.intake.open311.catalogue import (
    category,
    default_source,
    default_urgency,
    jurisdiction,
    titled,
    w3,
)
from services.intake.open311.schemas import CLOSED, DAYS, OPEN
from services.intake.reporting import opened, opening
from services.intake.shell import IntakeShell
from services.intake.store import REPORTED, Listing
from services.intake.systems import must_be_allowed, must_be_inside, of_subject

_DAY_SECONDS = 86400.0
_MILLISECOND = 0.001
_HELD = ("reported", "acknowledged")
_REPORT = ReportBody()
# What a report of ours calls what is sent here.
_FIELDS = {
    "division": "address_id",
    "address": "address_string",
    "title": "attribute[title]",
    "urgency": "attribute[urgency]",
    "source": "attribute[source]",
    "occurred_at": "attribute[occurred_at]",
    "category": "service_code",
    "reporter.name": "first_name",
    "reporter.phone": "phone",
    "reporter.email": "email",
    "reporter.device": "device_id",
    "reporter.account": "account_id",
    "location.lat": "lat",
    "location.long": "long",
}


class Period(NamedTuple):
    """From when to when, both included."""

    since: Instant
    until: Instant


def system_of(intake: DoorShell, call: Call, kind: str) -> Document:
    """The system whose key it is, if it may send such a thing, as fast as it does.

    :raises Problem: a 403, or a 429 with when to come again.
    """
    system = of_subject(intake.systems.all(), call.identity.subject)
    try:
        must_be_allowed(system, kind)
    except Refused as error:
        raise access.forbidden(call.identity, error.detail) from error
    in_time(intake.door.rates, system, 1)
    return system


def report(intake: DoorShell, call: Call) -> Answer:
    """Opens a case; the same ``Idempotency-Key`` gives the same request again."""
    system, sent, atlas = system_of(intake, call, "case.report"), call.body, intake.county.atlas()
    subject, key = call.identity.subject, call.idempotency_key
    case = str(
        uuid.uuid5(NAMESPACE, str(("open311", subject, key))) if key is not None else uuid.uuid4()
    )
    digest = intake.reporters.digest(sent)
    first = intake.store.read([case]).get(case) if key is not None else None
    if first is not None and first.document is not None:
        # Answered before any rule is asked: they may have changed since.
        call.trail.changed(first.document, first.document)
        return _created(model.same_report(first.document, digest), sent)
    profile = jurisdiction(atlas, sent["jurisdiction_id"])

    def allowed(place: Division, atlas: Atlas) -> None:
        must_be_inside(system, place.code, atlas)
        own = profile_for(atlas.current, place.code, atlas.directory)
        if own is not None and own.region != profile.region:
            said = f"{place.code} is in {own.region}, and not in {profile.region}: write that"
            raise problems.invalid({"jurisdiction_id": said})

    with _as_sent():
        opens = opening(intake, case, _body(sent, profile, atlas), subject, digest, within=allowed)
        intake.door.one_more(system)
        document = opened(lambda work: intake.act(work, call.trail), opens)
    return _created(document, sent)


def _created(document: Document, sent: Mapping[str, Any]) -> Answer:
    code = document["facts"]["tracking"]
    made = {
        "service_request_id": document["case"],
        "service_notice": f"查询码 {code}：凭此查询进度，请只告诉报告人",
        "account_id": sent.get("account_id"),
    }
    return Answer({"service_requests": [made]})


def _body(sent: Mapping[str, Any], profile: Profile, atlas: Atlas) -> dict[str, Any]:
    """The report, as ``POST /v1/cases`` takes it: so its rules are asked, and no others.

    :raises Problem: a 422 of what is wrong, a 404 of a service that there is none.
    """
    code = category(profile, sent["service_code"])
    location = {name: sent[name] for name in ("lat", "long") if name in sent} or None
    division, address = _place(sent, location, atlas)
    person = {
        "name": _name(sent.get("first_name", ""), sent.get("last_name", "")),
        "phone": sent.get("phone"),
        "email": sent.get("email"),
        "device": sent.get("device_id"),
        "account": sent.get("account_id"),
    }
    told = {
        "division": division,
        "address": address,
        "title": sent.get("title") or titled(profile.categories, code),
        "description": sent["description"],
        "category": code,
        "urgency": sent.get("urgency") or default_urgency(profile),
        "source": sent.get("source") or default_source(profile),
        "occurred_at": sent["occurred_at"],
        "location": location,
        "reporter": {name: value for name, value in person.items() if value} or None,
    }
    try:
        body: dict[str, Any] = _REPORT.load(told)
    except ValidationError as error:
        raise problems.of_validation(error, _REPORT) from error
    return {**body, "media": sent["media_url"]}


def _name(first: str, last: str) -> str:
    """A person's name: a Chinese one begins with the family's."""
    if first.isascii() and last.isascii():
        return f"{first} {last}".strip()
    return last + first


def _place(
    sent: Mapping[str, Any], location: Mapping[str, float] | None, atlas: Atlas
) -> tuple[str | None, str | None]:
    """The division and the address to report for.

    What is named is surer than what is near; what is near is surer than a part of the county.

    :raises Problem: a 422; nothing says where it is.
    """
    code, text, directory = sent["address_id"], sent["address_string"], atlas.directory
    if code is not None or location is None:
        return code, text
    if text is not None:
        try:
            if directory.locate(text).certain:
                return None, text
        except DivisionError:
            # Several counties, and it names none: the map says which.
            pass
    near = directory.points.nearest(location["lat"], location["long"])
    if near is not None or text is not None:
        return near.code if near is not None else None, text
    why = "no place of the directory is near" if directory.points else "no place has a point yet"
    said = f"{why}: send address_string (a place name) or address_id (a division code), too"
    raise problems.invalid({"lat": said})


@contextmanager
def _as_sent() -> Iterator[None]:
    """What is wrong is told by the names under which it was sent."""
    try:
        yield
    except Problem as problem:
        listed = problem.facts.get("errors")
        if not listed:
            raise
        named = {_FIELDS.get(each["field"], each["field"]): each["detail"] for each in listed}
        raise problems.invalid(named) from problem


def token(intake: IntakeShell, call: Call, code: str) -> dict[str, Any]:
    """The request of a tracking code, for whoever knows the code.

    :raises Problem: a 404; no case has it.
    """
    if call.query["jurisdiction_id"] is not None:
        jurisdiction(intake.county.atlas(), call.query["jurisdiction_id"])
    try:
        document = intake.store.by_tracking(model.read_tracking_code(code))
    except ValueError as error:
        raise Problem(404, f"{error}") from error
    if document is None:
        raise Problem(404, "no request has this token: compare it with what you were given")
    found = {"service_request_id": document["case"], "token": document["facts"]["tracking"]}
    return {"service_requests": [found]}


def one(intake: IntakeShell, call: Call, case: str) -> dict[str, Any]:
    """A request, if the caller may see it.

    :raises Problem: a 404; there is none that they may.
    """
    found = _named(intake, call, [case])
    if not found:
        raise Problem(
            404, f"there is no request {case} that you may see: send the api_key it is of"
        )
    return {"service_requests": found}


def listed(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """A page of requests, the latest first: one's own, or those that the county opens."""
    query, atlas = call.query, intake.county.atlas()
    if query["service_request_id"]:
        return {"service_requests": _named(intake, call, query["service_request_id"])}
    profile = jurisdiction(atlas, query["jurisdiction_id"])
    categories = query["service_code"] and [
        category(profile, code) for code in query["service_code"]
    ]
    wanted, skip = period(query, intake.now), (query["page"] - 1) * query["page_size"]
    where = Listing(REPORTED, *wanted, categories=categories, statuses=_statuses(query["status"]))
    if call.identity is not ANONYMOUS:
        where = where._replace(by=call.guard.own(), under=profile.region)
    else:
        opened_here = opened_of(profile, where, atlas, intake.now)
        if opened_here is None:
            return {"service_requests": []}
        where = opened_here
    documents = intake.store.listed(where, skip, query["page_size"], order=-1)
    here = inside(documents, profile.region, atlas)
    return {"service_requests": _shown(here, call, atlas, intake.now)}


def opened_of(profile: Profile, where: Listing, atlas: Atlas, now: Instant) -> Listing | None:
    """A list as it is for everybody, by whole days; None where the profile opens nothing."""
    if profile.board is None:
        return None
    zone = ZoneInfo(profile.timezone)
    since, until = _midnight(where.since, zone), _midnight(where.until, zone, days=1)
    return where._replace(
        since=since,
        until=plus(until, -_MILLISECOND),
        board=board.filter_of(atlas, profile, profile.board, profile.region, now),
    )


def period(query: Mapping[str, Any], now: Instant) -> Period:
    """The time that a query is about: 90 days from or up to what is given, or the last ones.

    :raises Problem: a 422; it is longer, or ends before it begins.
    """
    longest = DAYS * _DAY_SECONDS
    since, until = query["start_date"], query["end_date"]
    if since is None:
        until = until or now
        since = plus(until, -longest)
    elif until is None:
        until = plus(since, longest)
    if not 0 <= seconds_between(since, until) <= longest:
        raise problems.invalid(
            {"end_date": f"write a time after start_date, {DAYS} days at most: ask several times"}
        )
    return Period(since, until)


def _midnight(at: Instant, zone: ZoneInfo, days: int = 0) -> Instant:
    """When the day of a time began there, or a day after it does."""
    day = local_date(at, zone) + timedelta(days=days)
    return instant(datetime.combine(day, time(), zone))


def _statuses(sent: Iterable[str] | None) -> list[str] | None:
    """The words of the register for ``open`` and ``closed``."""
    if sent is None or set(sent) == {OPEN, CLOSED}:
        return None
    return list(_HELD) if OPEN in sent else [stage.word for stage in Stage if stage != Stage.HELD]


def _named(intake: IntakeShell, call: Call, cases: list[str]) -> list[dict[str, Any]]:
    """Those of these requests that the caller may see, in their order."""
    atlas, sent = intake.county.atlas(), call.query["jurisdiction_id"]
    region = None if sent is None else jurisdiction(atlas, sent).region
    records = intake.store.read(cases)
    documents = [
        record.document
        for record in map(records.get, cases)
        if record is not None and record.document is not None
    ]
    here = documents if region is None else inside(documents, region, atlas)
    return _shown(here, call, atlas, intake.now)


def inside(documents: Iterable[Document], region: str, atlas: Atlas) -> list[Document]:
    """Those that happened there: what was only sent there is shown where it happened."""
    within = atlas.directory.within
    return [document for document in documents if within(document["facts"]["division"], region)]


def _shown(
    documents: Iterable[Document], call: Call, atlas: Atlas, now: Instant
) -> list[dict[str, Any]]:
    found = []
    for document in documents:
        profile = board.opens(document, atlas, now)
        if call.identity is not ANONYMOUS and _by(document) == call.guard.own():
            found.append(_own(document, atlas))
        elif profile is not None:
            found.append(_open(document, profile, atlas))
    return found


def _by(document: Document) -> str | None:
    by: str | None = (document["report"] or {}).get("by")
    return by


def _own(document: Document, atlas: Atlas) -> dict[str, Any]:
    """A request as who sent it sees it; nobody's name, and no note."""
    facts, state, told = document["facts"], document["state"], document["report"] or {}
    profile, place = rules_of(facts, atlas), facts["division"]
    zone = ZoneInfo(profile.timezone)
    location = told.get("location") or {"lat": None, "long": None}
    due = min(
        (item["due"] for item in state["deadlines"] if item["kind"] == "resolve"), default=None
    )
    address = Address.of(state["address"])
    return {
        **_common(document, profile),
        "status_notes": _notes(document, profile, atlas),
        "description": told.get("description") or None,
        "agency_responsible": atlas.directory.name(address.division)
        + (_unit(address.unit, atlas) if address.unit else ""),
        "requested_datetime": w3(facts["reported_at"], zone),
        "updated_datetime": w3(_updated(document), zone),
        "expected_datetime": due and w3(due, zone),
        "address": told.get("address") or atlas.directory.name(place),
        "address_id": place,
        **location,
        "media_url": next(iter(told.get("media", ())), None),
    }


def _open(document: Document, profile: Profile, atlas: Atlas) -> dict[str, Any]:
    """A request as everybody sees it: nothing that points to a person."""
    facts, zone = document["facts"], ZoneInfo(profile.timezone)
    place = board.village(facts["division"], atlas)
    outcome = document["state"]["resolution"]["outcome"]
    return {
        **_common(document, profile),
        "status_notes": titled(rules_of(facts, atlas).outcomes, outcome),
        "description": None,
        "agency_responsible": None,
        "requested_datetime": w3(_midnight(facts["reported_at"], zone), zone),
        "updated_datetime": w3(ended_on(document, zone), zone),
        "expected_datetime": None,
        "address": atlas.directory.name(place),
        "address_id": place,
        "lat": None,
        "long": None,
        "media_url": None,
    }


def ended_on(document: Document, zone: ZoneInfo) -> Instant:
    """The day on which a case was resolved."""
    return _midnight(document["state"]["resolution"]["at"], zone)


def _common(document: Document, profile: Profile) -> dict[str, Any]:
    code = document["facts"]["category"]
    return {
        "service_request_id": document["case"],
        "status": status_of(document["state"]["token"]["stage"]),
        "service_name": titled(profile.categories, code),
        "service_code": code,
        "service_notice": None,
        "zipcode": None,
    }


def status_of(stage: str) -> str:
    """A case's stage in Open311's two words."""
    return OPEN if stage == Stage.HELD.word else CLOSED


def rules_of(facts: Mapping[str, Any], atlas: Atlas) -> Profile:
    """The rules of a case; where they have not arrived, those that its division has now.

    :raises UnknownProfile: neither has arrived.
    """
    if not atlas.knows(facts):
        present = profile_for(atlas.current, facts["division"], atlas.directory)
        if present is not None:
            return present
    return atlas.rules_for(facts)


def _notes(document: Document, profile: Profile, atlas: Atlas) -> str:
    """How far it is, in the county's own words."""
    facts, state = document["facts"], document["state"]
    status, resolution = document["status"], state["resolution"]
    if status == "withdrawn":
        return "已撤回"
    if resolution is not None and status in ("resolved", "closed"):
        word = "已办结" if status == "resolved" else "已销号"
        return f"{word}：{titled(profile.outcomes, resolution['outcome'])}"
    step = profile.title_of(facts["ladder"], Address.of(state["address"]), atlas.directory)
    return f"{step}：{'已接单' if status == 'acknowledged' else '待接单'}"


def _updated(document: Document) -> Instant:
    """When something happened to it last; of what has ended when it did."""
    facts, state = document["facts"], document["state"]
    if document["status"] == "withdrawn" and document.get("withdrawal"):
        return Instant(document["withdrawal"]["at"])
    if document["status"] in ("resolved", "closed") and state["resolution"]:
        return Instant(state["resolution"]["at"])
    times = [
        facts["reported_at"],
        state["clocks"]["level"]["started_at"],
        *(update["at"] for update in document.get("updates", ())),
    ]
    if state["acknowledged"]:
        times.append(state["acknowledged"]["at"])
    return Instant(max(times))


def _unit(identity: str, atlas: Atlas) -> str:
    unit = atlas.directory.units.get(identity)
    return unit.name if unit is not None else identity
