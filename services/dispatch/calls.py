"""What the units of a desk are called to (吹哨报到): a document of the desk for each call.

Its key is ``call:<id>``; it is ``{case, facts, state: none, called_in, call, checked_in, finished,
ended, told, status, under}``:

- ``call`` is as :mod:`services.grid.whistles` has it, ``called_in`` the state of the case as the
  custodian told it;
- ``checked_in`` and ``finished`` are none or ``{by, at, note}``, ``ended`` none or
  ``{why, at, released}``;
- ``told`` are the ids of the events by which the unit was called: one more means that the custodian
  has forgotten, and is told what the unit did;
- ``asks`` is what systems that are bound to the unit asked for, see ``asks.py``;
- ``status`` is ``called``, ``checked_in``, ``finished`` or ``ended``.

The unit's desk alone writes what the unit did, and only the custodian ends a call: a unit that is
done stays until then (事不绝、人不撤).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.dispatch import asks
from services.grid import whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.making import case_event

CALLED, CALL_ENDED = "case.called", "case.call_ended"
TYPES = (CALLED, CALL_ENDED)
STATUSES = ("called", "checked_in", "finished", "ended")

Attachments = Sequence[dict[str, Any]]


def about(event: Event) -> bool:
    """Whether an event is about a call, and not about an entry of the docket."""
    return event.type in TYPES or (event.type == asks.ASKED and "call" in event.data)


def wrong_level(event: Event, level: str) -> str | None:
    """Why what the custodian says of a call is not for this desk, if it is not."""
    call = event.data["call"]
    if call["level"] == level:
        return None
    return f"a call of the {call['level']} unit {call['unit']} came to the {level} desk"


def key(identity: str) -> str:
    """The key of a call in the docket."""
    return f"call:{identity}"


def merge(document: Document | None, event: Event) -> Document:
    """What the desk knows of a call after an event, in whatever order the two come."""
    data = event.data
    told = {"facts": data["case"], "called_in": data["state"], "call": data["call"]}
    if document is None:
        document = {
            "case": event.subject,
            **told,
            "state": None,
            "checked_in": None,
            "finished": None,
            "ended": None,
            "told": [],
            "under": [],
        }
    if event.type == CALLED:
        document = {**document, **told, "told": sorted({*document["told"], event.id})}
        # What this desk has forgotten, for it was restored.
        done = data.get("progress", {})
        for what in ("checked_in", "finished"):
            document[what] = document[what] or done.get(what)
    if event.type == asks.ASKED:
        document = asks.merge(document, event)
    known = document["ended"]
    # Of a case that was withdrawn and resolved nevertheless, the release counts.
    if event.type == CALL_ENDED and (known is None or data["why"] == "released"):
        ended = {"why": data["why"], "at": event.time, "released": data["released"]}
        document = {**document, "ended": ended}
    return _with_status(document)


def heard(before: Document | None, event: Event, atlas: Atlas, now: Instant) -> Decision:
    """:func:`merge`, and what the custodian must be told again.

    It calls a unit once, unless it was restored and has forgotten that it did.
    """
    document = merge(before, event)
    if not document["under"]:
        place = document["call"]["division"]
        under = [above.code for above in atlas.directory.ancestors(place)]
        document = {**document, "under": under}
    again = before is not None and before["told"] and document["told"] != before["told"]
    what = next((name for name in ("finished", "checked_in") if document[name] is not None), None)
    decision = Decision(document)
    if again and what is not None:
        decision = Decision(document, [_said(document, what, atlas, now, again=f":{event.id}")])
    if not document["told"] and document["ended"] is None:
        # Only the custodian calls: what overtakes it waits.
        return decision
    return asks.answered(decision, _ACTS, document["call"]["level"], atlas, now)


def check_in(
    document: Document,
    by: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """An officer of the unit says that it has come (报到); again, it changes nothing.

    Late is better than never: it may be after the deadline.

    :raises Refused: another officer said so already, or the unit may leave.
    """
    return _done(document, "checked_in", by, note, attachments, atlas=atlas, now=now)


def finish(
    document: Document,
    by: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """An officer of the unit says that it is done; it stays until the holder releases it.

    A unit that had not checked in does so with it. Again, it changes nothing.

    :raises Refused: another officer said so already, or the unit may leave.
    """
    return _done(document, "finished", by, note, attachments, atlas=atlas, now=now)


def _done(
    document: Document,
    what: str,
    by: str,
    note: str,
    attachments: Attachments,
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    known, said = document[what], {"by": by, "at": now, "note": note}
    word = what.replace("_", " ")
    if known is not None:
        if known["by"] == by:
            return Decision(document, answer=document)
        raise Refused(f"{known['by']} has {word} already, for the whole unit", **{what: known})
    if document["ended"] is not None:
        why = {
            "released": "who called the unit has released it",
            "ended": "the case has ended",
        }[document["ended"]["why"]]
        raise Refused(f"{why}: nobody waits for it any more", ended=document["ended"])
    document = {**document, "checked_in": document["checked_in"] or said, what: said}
    document = _with_status(document)
    attached: dict[str, Any] = {"attachments": list(attachments)} if attachments else {}
    return Decision(document, [_said(document, what, atlas, now, **attached)], document)


def _said(
    document: Document, what: str, atlas: Atlas, now: Instant, again: str = "", **attached: Any
) -> Event:
    progress = {name: document[name] for name in ("checked_in", "finished")}
    call = document["call"]
    return case_event(
        f"case.{what}",
        service=f"dispatch/{call['level']}",
        case=document["case"],
        facts=document["facts"],
        state=document["called_in"],
        now=now,
        directory=atlas.directory,
        discriminator=f"{call['id']}{again}",
        addressed=whistles.address(call),
        call=call,
        progress={**progress, "missed": []},
        **attached,
    )


def _asked(document: Document, ask: dict[str, Any], *, atlas: Atlas, now: Instant) -> Decision:
    attached = ask.get("attachments", ())
    return check_in(document, ask["by"], ask["note"], attached, atlas=atlas, now=now)


_ACTS = {"check_in": _asked}


def _with_status(document: Document) -> Document:
    done = [name for name in ("finished", "checked_in") if document[name] is not None]
    status = "ended" if document["ended"] is not None else (done or ["called"])[0]
    return {**document, "status": status}
