"""Subscriptions over HTTP: which events another system gets, where, and how that goes. Pure.

A subscription is ``{id, by, made, types, level, division, sink, secret, rate, status, why, ...}``:

- without ``types`` it is for all of :data:`TYPES`. ``level`` is that of who holds the case,
  ``division`` (with all below it) where it is held, or where it happened: as far as that, the
  case may be read by who reads what is addressed there;
- ``secret`` is sealed; ``rate`` is how many requests a minute the sink allows, none for no limit,
  ``asked`` how many it was asked for;
- ``status``: ``active``; ``replaying`` (events come out of intake's timeline, and new ones wait
  there too); ``joining`` (what comes is gathered while the timeline's last seconds are read once
  more, so that nothing is missed between the two; then it is ``active``); ``paused`` (nothing is
  sent or gathered); ``ended`` (the sink wants nothing any more); ``removed``.

``trouble``, ``quiet_until``, ``pace``, ``delivered_at`` and ``since`` are real Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.clock import Instant, plus
from services.grid.events import Event, of_consumer
from services.notify.channels import Sent
from services.notify.model import back_off

TYPES = tuple(kind.name for kind in of_consumer("notify") if kind.name.startswith("case."))
"""What can be subscribed to; what only desks and custodian say to each other is not in it."""
MOST = 100
"""So many subscriptions there may be."""
SENDING = ("active", "replaying")
GATHERING = ("active", "joining")
READING = ("replaying", "joining")
OVER = ("ended", "removed")

OVERLAP_SECONDS = 30.0
"""So many real seconds of the timeline are read twice where it and the bus meet.

More than a process believes what it read of the subscriptions, and than intake takes to write.
"""
MARGIN_SECONDS = 600.0
"""So many real seconds before a pause it is read from when it is resumed: this service may have
been behind intake. What was sent already is not sent again."""
AHEAD = 1000
"""The timeline is read no further while so many cases wait to be sent."""
_NOTED_SECONDS = 10.0
_WANTED = ("types", "level", "division", "sink")


@dataclass(frozen=True, slots=True)
class Told:
    """What became of what was sent to a sink in one turn, the first of which began at ``began``."""

    delivered: int
    failed: Sequence[Sent]
    began: float


def made(
    identity: str, by: str, body: dict[str, Any], *, sealed: str, rate: int | None, now: Instant,
    real: float,
) -> Document:  # fmt: skip
    """A new subscription.

    :param body: ``types``, ``level``, ``division``, ``sink`` and ``rate``, as they were checked.
    :param rate: what the sink agreed to.
    """
    return {
        "id": identity,
        "by": by,
        "made": now,
        **{name: body[name] for name in _WANTED},
        "secret": sealed,
        "asked": body["rate"],
        "rate": rate,
        "status": "active",
        "why": None,
        "since": real,
        "trouble": None,
        "quiet_until": 0.0,
        "pace": 0.0,
        "delivered_at": None,
        "replay": None,
        "replays": 0,
    }


def asks_the_same(document: Document, body: dict[str, Any]) -> bool:
    """Whether it is still there and was made with just this body; its secret is not compared."""
    wanted = {name: document[name] for name in _WANTED} | {"rate": document["asked"]}
    return document["status"] != "removed" and wanted == {name: body[name] for name in wanted}


def wants(document: Document, event: Event, atlas: Atlas) -> bool:
    """Whether a subscription is for an event about a case."""
    if event.type not in (document["types"] or TYPES):
        return False
    address = event.data["state"]["address"]
    if document["level"] not in (None, address["level"]):
        return False
    place, within = document["division"], atlas.directory.within
    happened = event.data["case"]["division"]
    return place is None or within(address["division"], place) or within(happened, place)


def told(
    document: Document,
    what: Told,
    *,
    now: Instant,
    real: float,
    pause_after: float,
    scale: float = 1.0,
) -> Decision:
    """Writes down how it went: a sink that is down is left alone for a growing while.

    One that took nothing for ``pause_after`` real seconds is paused, one that answered 410 ended.

    :param scale: virtual seconds in a real one.
    :returns: with the new status, if it changed, as the answer.
    """
    if document["status"] in (*OVER, "paused"):
        return Decision(None)
    gone = next((sent for sent in what.failed if sent.gone), None)
    if gone is not None:
        return Decision(_over(document, "ended", gone.reason, real), answer="ended")
    kept = dict(document)
    wait = max((sent.wait for sent in what.failed), default=0.0)
    if wait:
        kept["quiet_until"] = max(kept["quiet_until"], real + wait)
    if what.delivered:
        kept["trouble"] = None
        if kept["delivered_at"] is None or real - kept["delivered_at"] >= _NOTED_SECONDS:
            kept["delivered_at"] = real
    elif what.failed:
        _in_trouble(kept, what, real)
        if real - kept["trouble"]["since"] >= pause_after:
            # What comes from now on is found in the timeline when it is resumed.
            since = max(kept["made"], plus(now, -MARGIN_SECONDS * scale))
            replay = kept["replay"] or _from(since)
            why = kept["trouble"]["reason"]
            return Decision({**_over(kept, "paused", why, real), "replay": replay}, answer="paused")
    return Decision(kept)


def _in_trouble(kept: Document, what: Told, real: float) -> None:
    before = kept["trouble"] or {"since": real, "count": 0, "last": 0.0}
    reason = what.failed[-1].reason
    kept["trouble"] = {**before, "reason": reason}
    # What had begun before the last trouble was noted belongs to it.
    if any(sent.down for sent in what.failed) and what.began >= before["last"]:
        count = before["count"] + 1
        kept["trouble"] |= {"count": count, "last": real}
        quiet = real + back_off(count, kept["id"])
        kept["quiet_until"] = max(kept["quiet_until"], quiet)


def reserve(document: Document, wanted: int, *, real: float) -> Decision:
    """Takes places of those that the sink's rate allows; up to a second's worth at once.

    :returns: with how many there are, and when the next will be, as the answer.
    """
    rate = document["rate"]
    if rate is None:
        return Decision(None, answer=(wanted, real))
    each = 60.0 / rate
    start = max(document["pace"], real - max(1, rate // 60) * each)
    # The least bit of a second must not cost a place.
    granted = min(wanted, int((real - start) / each + 1e-6))
    pace = start + granted * each
    if not granted:
        return Decision(None, answer=(0, start + each))
    return Decision({**document, "pace": pace}, answer=(granted, pace + each))


def resumed(document: Document | None, rate: int | None, real: float) -> Decision:
    """Goes on where it was paused; what happened since comes out of the timeline.

    :param rate: what the sink agreed to.
    :raises Refused: it is not paused.
    """
    kept = _there(document)
    if kept["status"] != "paused":
        raise Refused(f"it is {kept['status']}, and not paused", status=kept["status"])
    changed = {"status": "replaying", "why": None, "since": real, "trouble": None, "rate": rate}
    replay = {**kept["replay"], "until": 0.0}
    return Decision({**kept, **changed, "quiet_until": 0.0, "replay": replay}, answer=True)


def replayed(
    document: Document | None, since: Instant, *, now: Instant, real: float, scale: float = 1.0
) -> Decision:
    """Sends once more what intake has heard of from ``since`` on.

    It is read from before that if else something would be missed: what was to be read still, and
    what this service may hear of only after it has stopped to gather.

    :param scale: virtual seconds in a real one.
    :raises Refused: it sends nothing now.
    """
    kept = _there(document)
    if kept["status"] not in (*SENDING, "joining"):
        cure = "resume it first" if kept["status"] == "paused" else "make another one"
        raise Refused(f"it is {kept['status']}: {cure}", status=kept["status"])
    begun = [kept["replay"]["at"]] if kept["replay"] is not None else []
    known = max(kept["made"], plus(now, -OVERLAP_SECONDS * scale))
    changed = {"status": "replaying", "since": real, "replays": kept["replays"] + 1}
    replay = _from(min(since, known, *begun))
    return Decision({**kept, **changed, "replay": replay}, answer=True)


def removed(document: Document | None, real: float) -> Decision:
    """Takes it away for good; its secret too."""
    kept = _there(document)
    return Decision({**_over(kept, "removed", None, real), "secret": None}, answer=True)


def read_on(document: Document, *, real: float, until: float, waiting: int = 0) -> Decision:
    """Takes the reading of the timeline in hand until ``until``, if it is this one's turn.

    :param waiting: how many cases have something that waits to be sent.
    :returns: with where to read from, or none, as the answer.
    """
    reading = document["replay"]
    early = document["status"] == "joining" and real < document["since"] + OVERLAP_SECONDS
    # Where the two meet nothing is sent: who waited for room there would wait for ever.
    full = document["status"] == "replaying" and waiting >= AHEAD
    if document["status"] not in READING or early or full or reading["until"] > real:
        return Decision(None)
    taken = {**reading, "until": until}
    return Decision({**document, "replay": taken}, answer=taken)


def has_read(
    document: Document,
    taken: dict[str, Any],
    at: tuple[Instant, str],
    *,
    end: bool,
    real: float,
    scale: float,
) -> Decision:
    """Writes down how far the timeline was read.

    :param taken: what :func:`read_on` gave; if it is somebody else's by now, nothing is done.
    :param at: the last that was read.
    :param end: whether that was all that there is.
    :param scale: virtual seconds in a real one.
    :returns: with the new status, if it changed, as the answer.
    """
    if document["replay"] != taken or document["status"] not in READING:
        return Decision(None)
    read = {**taken, "at": at[0], "key": at[1], "until": 0.0}
    if not end:
        return Decision({**document, "replay": read})
    if document["status"] == "replaying":
        # From now on new events are gathered; what came until all know that is read once more.
        again = max(taken["first"], plus(at[0], -2 * OVERLAP_SECONDS * scale))
        changed = {"status": "joining", "since": real, "replay": {**read, "at": again, "key": ""}}
        return Decision({**document, **changed}, answer="joining")
    changed = {"status": "active", "since": real, "replay": None}
    return Decision({**document, **changed}, answer="active")


def _there(document: Document | None) -> Document:
    if document is None or document["status"] == "removed":
        raise Problem(404, "there is no such subscription: huashi subscription list shows them")
    return document


def _over(document: Document, status: str, why: str | None, real: float) -> Document:
    return {**document, "status": status, "why": why, "since": real}


def _from(since: Instant) -> dict[str, Any]:
    """Where the timeline is read: behind ``(at, key)``, and never from before ``first``."""
    return {"at": since, "key": "", "until": 0.0, "first": since}
