"""What a holder did in the instant of a hop that left the case with them.

A hop to the same holder (a migration, an emergency, a merge) is decided from what the custodian
knows. An act of the holder that overtakes it was answered, and nobody lost the case: so it is not
beaten, as that of a desk which had lost it is, but taken over, by one more hop. What is taken over
never depends on which of two acts is heard first, nor on how often.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.bus.fold import Document
from services.grid import clocks
from services.grid.events import Event
from services.grid.tokens import Stage, Token

GRANTED = "case.extension_granted"

_LISTS = {"joined": "id", "steps": "step", "extensions": "id"}
"""What a holder's acts add to, and what tells two items of it apart."""


def overtaken(document: Document, event: Event) -> dict[str, Any] | None:
    """The state of an act that a hop overtook, if the case stayed with who did it; else none.

    :param document: the custody after the event was merged.
    """
    state, current = event.data["state"], Token.of(document["state"]["token"])
    token = Token.of(state["token"])
    if (token.round, token.stage, current.stage) != (current.round, Stage.HELD, Stage.HELD):
        return None
    if token.hop >= current.hop:
        return None
    since = [
        item
        for item in document["seen"]
        if item["round"] == token.round and token.hop <= item["hop"] <= current.hop
    ]
    if any(item["address"] != document["state"]["address"] for item in since):
        return None
    if event.type != GRANTED:
        # A later act of the same hop says all that this one says, and what has ended since.
        return dict(state) if token >= Token.of(since[0]["token"]) else None
    # Nobody applies what is granted to a hop that is over.
    asked, answer = event.data["extension"], event.data["answer"]
    more = {"id": asked["id"], "by": asked["by"], "granted_by": answer["by"], "at": answer["at"]}
    return {**state, "extensions": [*state.get("extensions", ()), more]}


def taken_over(state: Mapping[str, Any], late: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a case with what its holder did in an earlier hop of it.

    Its deadlines are as they were: they are to be counted anew if anything else has changed.
    """
    began = state["clocks"]["level"]["started_at"]
    restarted = began > late["clocks"]["level"]["started_at"]
    # What was granted before a clock began anew counted from a time that counts no longer.
    granted = [item for item in late.get("extensions", ()) if item["at"] >= began or not restarted]
    taken = dict(state)
    if state["acknowledged"] is None and late["acknowledged"] is not None:
        taken["acknowledged"] = late["acknowledged"]
    latest = max(state.get("progressed_at", ""), late.get("progressed_at", ""))
    if latest:
        taken["progressed_at"] = latest
    for name, identity in _LISTS.items():
        said = granted if name == "extensions" else late.get(name)
        if said:
            taken[name] = _both(state.get(name, ()), said, identity)
    taken["clocks"] = clocks.with_pauses_of(state["clocks"], late["clocks"])
    waits = [
        item
        for item in (state.get("suspension"), late.get("suspension"))
        if item is not None and clocks.stands_until(taken["clocks"], item["until"])
    ]
    taken.pop("suspension", None)
    if waits:
        taken["suspension"] = max(waits, key=lambda item: str(item["at"]))
    return taken


def _both(known: Any, late: Any, identity: str) -> list[dict[str, Any]]:
    """The items of both, in the order of ``known``; a unit that was released stays released."""
    found = {item[identity]: item for item in known}
    for item in late:
        mine = found.get(item[identity])
        if mine is None or (mine.get("released", item) is None and item["released"] is not None):
            found[item[identity]] = item
    return list(found.values())
