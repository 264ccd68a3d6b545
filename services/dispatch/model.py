"""A desk's docket as a fold: one entry for each time a case came to this desk.

An entry is ``{case, round, hop, facts, state, arrived, status, ended, held, refused, under}``:

- ``status`` is ``live`` until the desk resolves the case or the custodian releases it;
  ``ended`` then says why: ``resolved``, ``custody`` or ``resolution`` (another's counts);
- ``arrived`` is when its clock nominally started, none while only its release is known;
- ``held`` is who holds the case now, as the release told it;
- ``refused`` is the custodian's last refusal of what this desk asked;
- ``under`` are the codes of the division and all above it, for queries by subtree.

A release may overtake the arrival: then the entry is born ended.
"""

from __future__ import annotations

from typing import Any

from services.bus.errors import Refused, Reject
from services.bus.fold import Decision, Document, Work, failing
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.grid.events.making import case_event
from services.grid.profile import Profile
from services.grid.tokens import Address, Stage, Token

ARRIVALS = frozenset({"case.reported", "case.escalated"})
RECONCILED = "case.reconciled"


def work(event: Event, level: str, atlas: Atlas, now: Instant) -> Work:
    """What an event does to the docket of this level's desk."""
    sent_to = event.data["state"]["address"]["level"]
    if event.type in {*ARRIVALS, RECONCILED} and sent_to != level:
        return failing(Reject("wrong_level", f"a case for {sent_to} came to the {level} desk"))
    return Work(key(event), lambda record: decide(merge(record.document, event), atlas, now))


def key(event: Event) -> str:
    """Which docket entry an event is about: the case, the round and the hop."""
    token = _token(event)
    if event.type == "case.released":
        token = event.data["released"]["token"]
    elif event.type == "case.refused":
        token = event.data["asked"]
    return entry_key(event.subject, token["round"], token["hop"])


def entry_key(case: str, round_: int, hop: int) -> str:
    """The key of the entry that ``case`` has for this hop of this round."""
    return f"{case}:{round_}.{hop}"


def merge(document: Document | None, event: Event) -> Document:
    """What the docket knows after an event, in whatever order events come."""
    if event.type in ARRIVALS:
        return _arrived(document, event)
    if event.type == "case.released":
        return _released(document, event)
    if event.type == RECONCILED:
        return _reconciled(document, event)
    return _refused(document, event)


def decide(document: Document, atlas: Atlas, now: Instant) -> Decision:
    """Assigns a newly arrived case once; the choice is kept with its reason.

    With ``unstaffed: skip`` and nobody on duty it also asks the custodian to move it up.
    """
    state = document["state"]
    if state is None:
        return Decision(document)
    address = Address.of(state["address"])
    if not document["under"]:
        under = [place.code for place in atlas.directory.ancestors(address.division)]
        document = {**document, "under": under}
    if document["status"] != "live" or state["assigned"] is not None:
        return Decision(document)
    profile = atlas.profile(document["facts"]["profile"])
    officer, why = _on_duty(document["case"], address, profile, atlas)
    state = {
        **document["state"],
        "token": Token.of(document["state"]["token"]).act().as_dict(),
        "assigned": {"officer": officer, "why": why, "at": now},
    }
    document = {**document, "state": state}
    unstaffed = profile.unstaffed if officer is None else None
    events = [
        _event("case.assigned", document, atlas, now, deputy=why == "deputy", unstaffed=unstaffed)
    ]
    if unstaffed == "skip":
        events.append(_request(document, atlas, now, "escalate", "unstaffed"))
    return Decision(document, events)


def acknowledge(document: Document, by: str, note: str, *, atlas: Atlas, now: Instant) -> Decision:
    """An officer accepts the case (接单); to do it again changes nothing.

    :raises Refused: the desk no longer holds the case, or another officer accepted it.
    """
    _must_be_live(document)
    accepted = document["state"]["acknowledged"]
    if accepted is not None:
        if accepted["by"] != by:
            raise Refused(
                f"{accepted['by']} has acknowledged this case already", acknowledged=accepted
            )
        return Decision(document, answer=document)
    kept = [
        deadline
        for deadline in document["state"]["deadlines"]
        if "acknowledge" not in (deadline["kind"], deadline.get("of"))
    ]
    document = _acted(document, acknowledged={"by": by, "at": now}, deadlines=kept)
    event = _event("case.acknowledged", document, atlas, now, note=note)
    return Decision(document, [event], document)


def resolve(
    document: Document, by: str, outcome: str, note: str, *, atlas: Atlas, now: Instant
) -> Decision:
    """An officer settles the case (办结); the same again changes nothing.

    :param outcome: one of the profile's.
    :raises Refused: the desk no longer holds the case, or it was resolved otherwise.
    """
    settled = (document["state"] or {}).get("resolution")
    if settled is not None and document["ended"] == "resolved":
        if (settled["by"], settled["outcome"], settled["note"]) == (by, outcome, note):
            return Decision(document, answer=document)
        raise Refused("this desk has resolved the case already", resolution=settled)
    _must_be_live(document)
    document = {
        **_acted(
            document,
            stage=Stage.RESOLVED,
            deadlines=[],
            resolution={"outcome": outcome, "note": note, "by": by, "at": now},
        ),
        "status": "ended",
        "ended": "resolved",
    }
    return Decision(document, [_event("case.resolved", document, atlas, now)], document)


def _blank(event: Event, token: dict[str, Any]) -> Document:
    """An entry of which only an answer or a release is known so far."""
    return {
        "case": event.subject,
        "round": token["round"],
        "hop": token["hop"],
        "facts": event.data["case"],
        "state": None,
        "arrived": None,
        "under": [],
        "status": "live",
        "ended": None,
        "held": None,
        "refused": None,
    }


def _arrived(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, _token(event))
    if document["state"] is not None:
        return document
    state = event.data["state"]
    return {**document, "state": state, "arrived": state["clocks"]["level"]["started_at"]}


def _released(document: Document | None, event: Event) -> Document:
    released = event.data["released"]
    document = document or _blank(event, released["token"])
    held = document["held"]
    if held is None or Token.of(_token(event)) > Token.of(held["token"]):
        held = {name: event.data["state"][name] for name in ("token", "address")}
    ended = document["ended"]
    if ended is None or released["why"] == "resolution":
        ended = released["why"]
    return {**document, "status": "ended", "ended": ended, "held": held}


def _reconciled(document: Document | None, event: Event) -> Document:
    """The entry as the custodian knows it; what the desk did since, or a later release, counts."""
    document = document or _blank(event, _token(event))
    token, known = Token.of(_token(event)), document["state"]
    if document["held"] is not None and Token.of(document["held"]["token"]) > token:
        return document
    if known is None or token > Token.of(known["token"]):
        started = event.data["state"]["clocks"]["level"]["started_at"]
        document = {**document, "state": event.data["state"], "arrived": started}
    stage = Token.of(document["state"]["token"]).stage
    if stage == Stage.HELD:
        return {**document, "status": "live", "ended": None, "held": None}
    ended = document["ended"] or ("custody" if stage == Stage.WITHDRAWN else "resolved")
    return {**document, "status": "ended", "ended": ended}


def _refused(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, event.data["asked"])
    return {**document, "refused": {"request": event.data["request"], "why": event.data["why"]}}


def _on_duty(case: str, address: Address, profile: Profile, atlas: Atlas) -> tuple[str | None, str]:
    """The officer for a case, and why it is this one."""
    officers = atlas.directory.on_duty(*address)
    if officers:
        # Several share the work evenly, and a replay finds the same one.
        return officers[sum(case.encode()) % len(officers)].id, "on duty"
    if profile.unstaffed == "deputy":
        lead = atlas.directory.lead(address.level, address.division)
        if lead is not None:
            return lead.id, "deputy"
    return None, "nobody on duty"


def _must_be_live(document: Document) -> None:
    if document["status"] == "live":
        return
    held = document["held"]
    where = held["address"] if held else document["state"]["address"]
    stage = (held or document["state"])["token"]["stage"]
    said = (
        f"the case is {stage}"
        if stage != Stage.HELD.word
        else f"the case has moved on: {where['level']} {where['division']} holds it now"
    )
    raise Refused(said, held_by=where, stage=stage)


def _acted(document: Document, stage: Stage | None = None, **changes: Any) -> Document:
    token = Token.of(document["state"]["token"]).act(stage)
    return {**document, "state": {**document["state"], **changes, "token": token.as_dict()}}


def _token(event: Event) -> dict[str, Any]:
    token: dict[str, Any] = event.data["state"]["token"]
    return token


def _event(kind: str, document: Document, atlas: Atlas, now: Instant, **specific: Any) -> Event:
    return case_event(
        kind,
        service=f"dispatch/{document['state']['address']['level']}",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        **specific,
    )


def _request(document: Document, atlas: Atlas, now: Instant, action: str, reason: str) -> Event:
    token = Token.of(document["state"]["token"])
    level = document["state"]["address"]["level"]
    request = {
        "id": event_id(document["case"], token, "request", action),
        "action": action,
        "to": None,
        "reason": reason,
        "by": f"desk:{level}",
    }
    return _event("case.requested", document, atlas, now, discriminator=action, request=request)
