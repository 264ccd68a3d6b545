"""What happened to requests, and what is told of them (FixMyStreet's ``servicerequestupdates``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import ValidationError

from services.bus import problems
from services.bus.auth import ANONYMOUS
from services.bus.fold import Decision, Document, Record, Work
from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.grid.atlas import Atlas
from services.grid.events.case import UpdateSchema
from services.grid.events.envelope import event_id
from services.grid.profile import Profile
from services.grid.tokens import Address
from services.intake.door import DoorShell
from services.intake.open311.catalogue import jurisdiction, titled, w3
from services.intake.open311.requests import (
    ended_on,
    inside,
    opened_of,
    period,
    rules_of,
    status_of,
    system_of,
)
from services.intake.open311.schemas import CLOSED
from services.intake.store import ENDED, Listing
from services.intake.updates import update

_TOLD = UpdateSchema(only=("text",))
_UNCHANGED = ("OPEN", "UNCHANGED")
_WORDS = {
    "case.acknowledged": "{step}已接单",
    "case.escalated": "已提级：{step}",
    "case.delegated": "已下派：{step}",
    "case.transferred": "已转办：{step}",
    "case.returned": "已退回：{step}",
    "case.supervised": "已督办：{step}",
    "case.reopened": "重新办理：{step}",
    "case.resolved": "已办结：{outcome}",
    "case.closed": "已销号：{outcome}",
    "case.withdrawn": "已撤回",
}


def listed(intake: DoorShell, call: Call) -> dict[str, Any]:
    """A page of what happened, the first first: to one's own, or to what the county opens."""
    query, atlas, now = call.query, intake.county.atlas(), intake.now
    profile = jurisdiction(atlas, query["jurisdiction_id"])
    skip, limit, (since, until) = (
        (query["page"] - 1) * query["page_size"],
        query["page_size"],
        period(query, now),
    )
    if call.identity is not ANONYMOUS:
        entries = intake.happenings.of(call.guard.own(), since, until, skip, limit)
        return {"service_request_updates": [_own(entry, atlas) for entry in entries]}
    where = opened_of(profile, Listing(ENDED, since, until), atlas, now)
    if where is None:
        return {"service_request_updates": []}
    documents = inside(intake.store.listed(where, skip, limit, order=1), profile.region, atlas)
    found = [_ended(document, profile, atlas) for document in documents]
    return {"service_request_updates": found}


def _own(entry: Mapping[str, Any], atlas: Atlas) -> dict[str, Any]:
    facts, state = entry["facts"], entry["state"]
    profile, address = rules_of(facts, atlas), Address.of(state["address"])
    step = profile.title_of(facts["ladder"], address, atlas.directory)
    outcome = titled(profile.outcomes, entry["outcome"]) if entry["outcome"] else ""
    return {
        "update_id": entry["_id"],
        "service_request_id": entry["case"],
        "status": status_of(state["token"]["stage"]),
        "updated_datetime": w3(entry["at"], ZoneInfo(profile.timezone)),
        "description": _WORDS.get(entry["type"], "{step}").format(step=step, outcome=outcome),
        "media_url": None,
    }


def _ended(document: Document, profile: Profile, atlas: Atlas) -> dict[str, Any]:
    token, outcome = document["state"]["token"], document["state"]["resolution"]["outcome"]
    zone, own = ZoneInfo(profile.timezone), rules_of(document["facts"], atlas)
    return {
        "update_id": event_id(document["case"], token["round"], "ended"),
        "service_request_id": document["case"],
        "status": CLOSED,
        "updated_datetime": w3(ended_on(document, zone), zone),
        "description": f"已办结：{titled(own.outcomes, outcome)}",
        "media_url": None,
    }


def post(intake: DoorShell, call: Call) -> Answer:
    """Adds what the system has learned since to a case that it reported; again changes nothing.

    :raises Problem: a 404; it reported no such case.
    """
    sent, by = call.body, call.identity.subject
    system = system_of(intake, call, "case.update")
    atlas, now, case = intake.county.atlas(), intake.now, sent["service_request_id"]
    jurisdiction(atlas, sent["jurisdiction_id"])
    record = intake.store.read([case]).get(case)
    document = record.document if record is not None else None
    reported_by = ((document or {}).get("report") or {}).get("by")
    if document is None or reported_by != by:
        # Whether there is such a case of another's is nobody's business.
        raise Problem(404, f"you reported no request {case}: compare service_request_id")
    call.guard.must_have_reported(reported_by)
    identity = event_id(f"open311/{system['name']}", sent["update_id"], "case.update")
    said = {"text": _text(sent), "attachments": []}

    def change(record: Record) -> Decision:
        latest = record.document or document
        return update(latest, identity, said, by, atlas=atlas, now=now)

    intake.act(Work(case, change), call.trail)
    return Answer({"service_request_updates": [{"update_id": identity}]})


def _text(sent: Mapping[str, Any]) -> str:
    """What is kept: the text, with what the sender calls the status if that is news, and links.

    :raises Problem: a 422; with its links it is nothing that an event may carry.
    """
    status, links = sent["status"].upper(), sent["media_url"]
    marked = "" if status in _UNCHANGED else f"[{status}] "
    text = "\n".join([f"{marked}{sent['description']}", *links])
    try:
        _TOLD.load({"text": text})
    except ValidationError as error:
        # By itself the description may be told.
        why = " ".join(error.messages_dict["text"])
        said = f"{why} The links are told with the description: send fewer, shorter or others."
        raise problems.invalid({"media_url": said}) from error
    return text
