"""When a resolved case is closed (销号): as soon as it is confirmed, or when nobody answers.

A register document has ``close_due``, when to look at the case again, and ``closing``,
``{token, due, rule, source, calendar, counted}``, until when an answer (回访) is waited for and why
so long, while the case is resolved and its profile asks; neither otherwise. The time counts from
when the register heard of the resolution, for only then somebody can answer: an outage takes
nothing from it. Once it is closed it has ``closed``, ``{why, at, round}``.
"""

from __future__ import annotations

from services.bus.fold import Decision, Document, Record, Work
from services.grid import deadlines
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import Instant, plus
from services.grid.events.making import case_event
from services.grid.tokens import Stage, Token

LATER_SECONDS = 300.0
"""Until a case whose rules can't be read yet, or that could not be closed, is looked at again."""


def arranged(document: Document, atlas: Atlas, now: Instant) -> Document:
    """The document with when it closes, decided once for each resolution."""
    state, known = document["state"], document.get("closing")
    if Token.of(state["token"]).stage == Stage.RESOLVED:
        if known is not None and known["token"] == state["token"]:
            return document
        try:
            profile = atlas.rules_for(document["facts"])
        except UnknownProfile:
            return {**_without(document), "close_due": plus(now, LATER_SECONDS)}
        found = deadlines.of_feedback(profile, now, atlas.holidays)
        if found is not None:
            closing = {"token": state["token"], **found}
            return {**document, "closing": closing, "close_due": found["due"]}
    return _without(document)


def close(document: Document, why: str, *, atlas: Atlas, now: Instant) -> Decision:
    """Closes a resolved case: ``confirmed``, or ``unanswered``."""
    token = Token.of(document["state"]["token"])._replace(stage=Stage.CLOSED)
    due = (document.get("closing") or {"due": None})["due"]
    document = {
        **_without(document),
        "state": {**document["state"], "token": token.as_dict()},
        "status": Stage.CLOSED.word,
        "closed": {"why": why, "at": now, "round": token.round},
    }
    event = case_event(
        "case.closed",
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        closing={"why": why, "due": due if why == "unanswered" else None},
    )
    return Decision(document, [event], document)


def due_work(case: str, atlas: Atlas, now: Instant) -> Work:
    """What the time does to a resolved case: it is closed if nobody has answered."""
    return Work(case, lambda record: fire(record, atlas, now))


def later_work(case: str, now: Instant) -> Work:
    """Looks at a case again later: what is wrong with it must not stop the others."""
    at = plus(now, LATER_SECONDS)
    return Work(case, lambda record: Decision({**(record.document or {}), "close_due": at}))


def fire(record: Record, atlas: Atlas, now: Instant) -> Decision:
    """Closes a case whose time is over, unless somebody has done anything meanwhile."""
    document = record.document
    if document is None or not _is_due(document, now):
        return Decision(document)
    document = arranged(document, atlas, now)
    if not _is_due(document, now):
        return Decision(document)
    return close(document, "unanswered", atlas=atlas, now=now)


def _is_due(document: Document, now: Instant) -> bool:
    due = document.get("close_due")
    return due is not None and due <= now


def _without(document: Document) -> Document:
    """The same object if there is nothing to leave out: then nothing is written."""
    parts = ("closing", "close_due")
    if not any(name in document for name in parts):
        return document
    return {name: value for name, value in document.items() if name not in parts}
