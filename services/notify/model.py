"""Notifications as a fold: one document for each event that somebody is told of.

It is ``{event, case, type, where, deliveries, next_try}``, ``where`` the level and path that its
own events are addressed to; a delivery is ``{id, recipient, channel,
text, status, attempts, next_try, reason}``. Its id is stable, so that a recipient who gets it
twice (a crash between sending and writing it down) can tell.

A recipient is a reference: ``officer:<id>``, ``desk:<level>:<division>`` or
``division:<code>``. How to reach it is a contact of this service and never leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from services.bus.fold import Decision, Document, Record, Work
from services.grid import whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant, plus
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.grid.tokens import Address
from services.notify.channels import Sent

ATTEMPTS = 24
"""So often something is tried: for almost three hours."""
LONGEST_BACK_OFF = 600.0
_FIRST_BACK_OFF = 5.0

WATCHED = "case.watched"
MERGED = "case.merged"


def back_off(attempts: int, identity: str) -> float:
    """Real seconds before the next attempt: doubling up to ten minutes, a quarter more or less.

    The same for the same identity and number of attempts, and for others another one, so that
    what failed together does not come back together.
    """
    pause = min(_FIRST_BACK_OFF * 2.0 ** min(attempts - 1, 10), LONGEST_BACK_OFF)
    chance = blake2b(f"{identity}|{attempts}".encode(), digest_size=2).digest()
    return pause * (0.75 + int.from_bytes(chance) / 0xFFFF / 2)


def watching(event: Event) -> Work:
    """What ``case.watched`` does to who watches its case: the greatest version counts."""
    told = {name: event.data[name] for name in ("watchers", "version")}

    def change(record: Record) -> Decision:
        known = record.document
        if known is not None and known["version"] >= told["version"]:
            return Decision(known)
        return Decision({"case": event.subject, **told})

    return Work(event.subject, change)


def work(event: Event, watchers: Sequence[str], atlas: Atlas, now: Instant) -> Work:
    """What an event does to the notifications: it may start one of its own.

    :param watchers: the references of who watches the case now.
    """
    return Work(event.id, lambda record: announce(record.document, event, watchers, atlas, now))


def announce(
    document: Document | None, event: Event, watchers: Sequence[str], atlas: Atlas, now: Instant
) -> Decision:
    """Decides once who is told of an event and how; nobody is told twice of a redelivery."""
    if document is not None:
        return Decision(document)
    if event.type == MERGED and event.data.get("joined") == []:
        # That others left is no merge, and they are told of it themselves.
        return Decision(None)
    deliveries = []
    profile = atlas.rules_for(event.data["case"])
    for template in profile.templates:
        if template.on != event.type:
            continue
        text = _text(template.text, event, atlas)
        for recipient in _recipients(template.tell, event, watchers, atlas):
            for channel in template.by:
                identity = event_id(event.id, recipient, channel)
                deliveries.append(
                    {
                        "id": identity,
                        "recipient": recipient,
                        "channel": channel,
                        "text": text,
                        "status": "pending",
                        "attempts": 0,
                        "next_try": now,
                        "reason": None,
                    }
                )
    if not deliveries:
        return Decision(None)
    unique = {delivery["id"]: delivery for delivery in deliveries}
    address = Address.of(event.data["state"]["address"])
    return Decision(
        {
            "event": event.id,
            "case": event.subject,
            "type": event.type,
            "where": f"{address.level}.{atlas.directory.path(address.division)}",
            "deliveries": list(unique.values()),
            "next_try": now,
        }
    )


def claim(document: Document, *, now: Instant, until: Instant) -> Decision:
    """Takes what is due in hand until ``until``; nobody else sends it meanwhile.

    :returns: with ``({case, type}, [delivery, ...])`` as the answer.
    """
    due = [item for item in document["deliveries"] if item["next_try"] and item["next_try"] <= now]
    taken = [
        {**item, "next_try": until} if item in due else item for item in document["deliveries"]
    ]
    told = {"case": document["case"], "type": document["type"]}
    return Decision(_with(document, taken), answer=(told, due))


def put_off(document: Document, identities: Sequence[str], until: Instant) -> Decision:
    """Gives back deliveries that were taken in hand and not tried: their turn is at ``until``."""
    deliveries = [
        {**item, "next_try": until}
        if item["id"] in identities and item["status"] == "pending"
        else item
        for item in document["deliveries"]
    ]
    return Decision(_with(document, deliveries))


def sent(
    document: Document, results: Mapping[str, Sent], *, now: Instant, scale: float = 1.0
) -> Decision:
    """Writes down what became of deliveries, by their ids.

    A failure is tried again after a growing pause; after ``ATTEMPTS``, or when the recipient
    wants nothing any more, it is given up, and said so in an event.

    :param scale: virtual seconds in a real one.
    :returns: with ``[(channel, status), ...]`` of what ended as the answer.
    """
    events = []
    deliveries = []
    ended = []
    for delivery in document["deliveries"]:
        if delivery["id"] in results and delivery["status"] == "pending":
            tried = _tried(delivery, results[delivery["id"]], now, scale)
            if tried["status"] != "pending":
                kind = f"notification.{tried['status']}"
                events.append(_outcome(kind, document, tried, now))
                ended.append((tried["channel"], tried["status"]))
            deliveries.append(tried)
        else:
            deliveries.append(delivery)
    return Decision(_with(document, deliveries), events, ended)


def _with(document: Document, deliveries: list[dict[str, Any]]) -> Document:
    waiting = [item["next_try"] for item in deliveries if item["next_try"]]
    return {**document, "deliveries": deliveries, "next_try": min(waiting, default=None)}


def _tried(delivery: dict[str, Any], result: Sent, now: Instant, scale: float) -> dict[str, Any]:
    """A delivery after one more attempt."""
    attempts = delivery["attempts"] + 1
    tried = {**delivery, "attempts": attempts, "reason": result.reason, "next_try": None}
    if result.reason is None:
        return {**tried, "status": "delivered"}
    if result.gone or attempts >= ATTEMPTS:
        return {**tried, "status": "failed"}
    pause = max(back_off(attempts, delivery["id"]), result.wait)
    return {**tried, "next_try": plus(now, pause * scale)}


def _recipients(
    tell: tuple[str, ...], event: Event, watchers: Sequence[str], atlas: Atlas
) -> list[str]:
    """The references that a template's words stand for, for this event."""
    facts, state = event.data["case"], event.data["state"]
    profile = atlas.rules_for(facts)
    address = Address.of(state["address"])
    found: list[str] = []
    for word in tell:
        if word == "holder":
            assigned = state["assigned"]
            officer = assigned and assigned["officer"]
            found.append(f"officer:{officer}" if officer else _desk(address))
        elif word == "above":
            above = profile.next_address(facts["ladder"], address, atlas.directory)
            found += [_desk(above)] if above is not None else []
        elif word in ("called", "called_above"):
            found += _called(word, event, atlas)
        elif word in ("also_tell", "watchers"):
            found += watchers if word == "watchers" else []
            # Whom a routing rule also tells, watches from the start.
            for level in facts["also_tell"]:
                place = atlas.directory.ancestor(facts["division"], level)
                found += [_desk(Address(level, place.code))] if place is not None else []
        else:
            found += [f"division:{code}" for code in event.data.get("tell", ())]
    return found


def _called(word: str, event: Event, atlas: Atlas) -> list[str]:
    """The officers on duty of the unit that an event is about, or the desk above it."""
    facts, unit = event.data["case"], whistles.address(event.data["call"])
    profile, directory = atlas.rules_for(facts), atlas.directory
    if word == "called":
        officers, _why = profile.on_duty(unit, directory, event.time)
        return [f"officer:{item.id}" for item in officers] or [_desk(unit)]
    on_ladder = unit.level in profile.steps(facts["ladder"])
    above = profile.next_address(facts["ladder"], unit, directory) if on_ladder else None
    parent = directory.parent(unit.division)
    if above is not None:
        return [_desk(above)]
    return [f"division:{parent.code}"] if parent is not None else []


def _desk(address: Address) -> str:
    return f"desk:{address.level}:{address.division}"


def _text(template: str, event: Event, atlas: Atlas) -> str:
    facts, state = event.data["case"], event.data["state"]
    profile = atlas.rules_for(facts)
    address = Address.of(state["address"])
    dues = sorted(item["due"] for item in state["deadlines"] if item["kind"] != "remind")
    call = event.data.get("call")
    if call is not None:
        # What is said of a call is about its own time.
        progress = event.data.get("progress", whistles.NOTHING)
        waited = [kind for kind in whistles.KINDS if not whistles.met(kind, progress)]
        dues = [call[kind]["due"] for kind in waited]
    unit = atlas.directory.units.get(call["unit"]) if call is not None else None
    return template.format(
        title=facts["title"],
        tracking=facts["tracking"],
        division=atlas.directory.name(facts["division"]),
        level=profile.title_of(facts["ladder"], address, atlas.directory),
        due=dues[0] if dues else "",
        unit=unit.name if unit is not None else (call or {"unit": ""})["unit"],
    )


def _outcome(kind: str, document: Document, delivery: dict[str, Any], now: Instant) -> Event:
    return Event(
        id=event_id(delivery["id"], "", kind),
        type=kind,
        subject=document["case"],
        time=now,
        source="huashi/notify",
        data={
            "notification": {
                "event": document["event"],
                "about": document["type"],
                "recipient": delivery["recipient"],
                "channel": delivery["channel"],
                "attempts": delivery["attempts"],
            },
            "reason": delivery["reason"],
        },
        key=f"{kind}.{document['where']}",
    )
