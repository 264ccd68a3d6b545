"""What a system that is bound to a unit does at the unit's desk: intake asks, the desk answers.

Intake knows the system and the desk the case, and neither writes the other's documents. So an ask
(``case.act_asked``) is an event that is addressed to the desk, and what the desk made of it is one
too (``case.act_answered``). An entry, or a call, keeps as ``asks`` by their id
``{..., heard, told, answer}``:

- what is asked, as the event has it, and ``state`` while the desk knows none of its own;
- ``heard`` are the ids of the events that asked, ``told`` those that were answered: one more means
  that intake was restored and has forgotten, and is answered again;
- ``answer`` is none, or what became of it: ``{answer: accepted}``, or ``refused`` with ``errors``
  and ``held_by``. It is decided once.

An ask that overtakes the arrival waits in the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.making import case_event
from services.grid.tokens import Address
from services.grid.whistles import WrongCall

ASKED, ANSWERED = "case.act_asked", "case.act_answered"
REMEMBERED = 100
"""How many answered asks a document remembers."""

Ask = dict[str, Any]
Acts = Mapping[str, Callable[..., Decision]]
"""What may be asked, by its name: ``(document, ask, *, atlas, now) -> Decision``."""


def merge(document: Document, event: Event) -> Document:
    """The document, which knows of one more ask."""
    known, ask = document.get("asks", {}), event.data["ask"]
    fresh = {**ask, "state": event.data["state"], "heard": [], "told": [], "answer": None}
    kept = known.get(ask["id"], fresh)
    kept = {**kept, "heard": sorted({*kept["heard"], event.id})}
    return {**document, "asks": {**known, ask["id"]: kept}}


def answered(decision: Decision, acts: Acts, level: str, atlas: Atlas, now: Instant) -> Decision:
    """A decision with what is asked of its document done, or refused, each once.

    :param level: the desk's, which says so.
    """
    document = decision.document
    if document is None or not document.get("asks"):
        return decision
    events = list(decision.events)
    for identity, ask in document["asks"].items():
        if ask["heard"] == ask["told"]:
            continue
        kept = ask
        if ask["answer"] is None:
            document, done, answer = _done(document, ask, acts, atlas, now)
            events += done
            kept = {**ask, "answer": answer}
        for asked_by in sorted({*ask["heard"]} - {*ask["told"]}):
            said = kept, asked_by, level
            events.append(_told(document, *said, atlas=atlas, now=now))
        kept = {**kept, "told": ask["heard"]}
        if _state(document) is not None:
            kept.pop("state", None)
        document = {**document, "asks": {**document["asks"], identity: kept}}
    return Decision(_forgotten(document), events, decision.answer)


def _done(
    document: Document, ask: Ask, acts: Acts, atlas: Atlas, now: Instant
) -> tuple[Document, list[Event], dict[str, Any]]:
    try:
        made = acts[ask["act"]](document, ask, atlas=atlas, now=now)
    except Refused as error:
        held_by = error.facts.get("held_by")
        told = {"held_by": held_by} if held_by is not None else {}
        return document, [], {"answer": "refused", "errors": {"event": error.detail}, **told}
    except WrongCall as error:
        wrong = {f"data.{name}": why for name, why in error.errors.items()}
        return document, [], {"answer": "refused", "errors": wrong}
    return made.document or document, list(made.events), {"answer": "accepted"}


def _told(
    document: Document, ask: Ask, asked_by: str, level: str, *, atlas: Atlas, now: Instant
) -> Event:
    state = _state(document) or ask["state"]
    names = ("id", "act", "by", "level", "division", "unit")
    return case_event(
        ANSWERED,
        service=f"dispatch/{level}",
        case=document["case"],
        facts=document["facts"],
        state=state,
        now=now,
        directory=atlas.directory,
        discriminator=f"{ask['id']}:{asked_by}",
        addressed=Address(level, ask["division"], ask["unit"]),
        answered={**{name: ask[name] for name in names}, **ask["answer"]},
    )


def _state(document: Document) -> dict[str, Any] | None:
    """The state that a document has of its own: an entry's, or that in which a unit was called."""
    found: dict[str, Any] | None = document["state"] or document.get("called_in")
    return found


def _forgotten(document: Document) -> Document:
    """The document without the oldest of those that are long answered."""
    asks = document["asks"]
    over = len(asks) - REMEMBERED
    if over <= 0:
        return document
    old = [identity for identity, ask in asks.items() if ask["answer"] is not None][:over]
    kept = {identity: ask for identity, ask in asks.items() if identity not in old}
    return {**document, "asks": kept}
