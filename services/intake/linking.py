"""Links (关联) between cases that have to do with each other: both show it, and nothing else.

A register document has ``links``, by the other case ``{on, version}``. Which of the two decides is
the one whose id comes first: what it says (``case.linked``) the register takes into the other one,
whose timeline then says the same. So two people who link and unlink at once leave no half a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import NOTHING, Decision, Document, Record, Work
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.making import case_event

LINKED = "case.linked"
MOST_LINKS = 100
TOLD = ("by", "note", "attachments")
"""What an event says of whoever linked two cases."""
NOTHING_SAID: Mapping[str, Any] = MappingProxyType({})


def noted(body: Mapping[str, Any]) -> dict[str, Any]:
    """The ``note`` and ``attachments`` of a body, as far as there are any."""
    return {name: body[name] for name in ("note", "attachments") if body[name]}


def decides(case: str, other: str) -> tuple[str, str]:
    """The two, first the one whose document says whether they are linked."""
    return min(case, other), max(case, other)


def linked(document: Document) -> list[str]:
    """The cases that a case is linked with."""
    return sorted(case for case, item in document.get("links", {}).items() if item["on"])


def must_have_room(document: Document, other: str) -> None:
    """That a case may be linked with another.

    :raises Refused: it has as many links as a case may have.
    """
    known = linked(document)
    if other not in known and len(known) >= MOST_LINKS:
        said = f"{MOST_LINKS} cases are linked with {document['case']} already"
        held = {"case": document["case"], "held_by": document["state"]["address"]}
        raise Refused(f"{said}: one of them must go first", **held)


def link(
    document: Document,
    other: str,
    by: str,
    *,
    on: bool,
    atlas: Atlas,
    now: Instant,
    said: Mapping[str, Any] = NOTHING_SAID,
) -> Decision:
    """Links a case with another, or no longer; again, it changes nothing.

    :param document: of the case that decides (:func:`decides`).
    :param said: a ``note`` and ``attachments``, as far as there are any: kept in the event.
    :raises Refused: it has as many links as a case may have.
    """
    known = document.get("links", {}).get(other, {"on": False, "version": 0})
    if known["on"] == on:
        return Decision(document, answer=document)
    if on:
        must_have_room(document, other)
    link = {"on": on, "version": known["version"] + 1}
    return _linked(document, other, link, {"by": by, **said}, atlas=atlas, now=now)


def work(event: Event, atlas: Atlas, now: Instant) -> Work:
    """What ``case.linked`` does to the other case; what that one says is known already."""
    said = event.data["link"]
    if decides(event.subject, said["case"])[0] != event.subject:
        return NOTHING
    told = {name: event.data[name] for name in TOLD if event.data.get(name)}
    return taken(said["case"], event.subject, said, told, atlas=atlas, now=now)


def taken(
    case: str,
    other: str,
    link: Mapping[str, Any],
    told: Mapping[str, Any],
    *,
    atlas: Atlas,
    now: Instant,
) -> Work:
    """What ``other``, which decides, says of its link with a case, ``{on, version}``.

    :param told: by whom, and what else they said (:data:`TOLD`).
    """

    def change(record: Record) -> Decision:
        document = record.document
        if document is None:
            return Decision(None)
        known = document.get("links", {}).get(other, {"version": 0})
        if known["version"] >= link["version"]:
            return Decision(document, answer=document)
        return _linked(document, other, link, told, atlas=atlas, now=now)

    return Work(case, change)


def _linked(
    document: Document,
    other: str,
    link: Mapping[str, Any],
    told: Mapping[str, Any],
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    said = {name: link[name] for name in ("on", "version")}
    links: dict[str, Any] = {**document.get("links", {}), other: said}
    document = {**document, "links": links}
    event = case_event(
        LINKED,
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        discriminator=f"{other}:{said['version']}",
        link={"case": other, **said},
        **told,
    )
    return Decision(document, [event], document)
