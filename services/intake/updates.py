"""What the system that reported a case has learned since: kept in the register and told.

``updates`` of a record are ``{id, by, at, text, attachments}``, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events.making import case_event
from services.grid.tokens import Stage

MOST = 100
"""Updates of a case."""


def update(
    document: Document,
    identity: str,
    said: Mapping[str, Any],
    by: str,
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """Adds an update to a case that is not settled; the same again changes nothing.

    :param identity: that of the event which brought it.
    :raises Refused: the case has ended, has as many as it may have, or another update had this id.
    """
    known = document.get("updates", [])
    told = {"text": said["text"], "attachments": said["attachments"]}
    for item in known:
        if item["id"] == identity:
            if {name: item[name] for name in told} != told:
                raise Refused("another update was sent under the same source and id: use a new id")
            return Decision(document, answer=document)
    stage = document["state"]["token"]["stage"]
    if stage != Stage.HELD.word:
        raise Refused(f"the case is {stage}: report what is new as a case of its own", stage=stage)
    if len(known) >= MOST:
        raise Refused(f"a case has at most {MOST} updates: report what is new as another case")
    added = {"id": identity, "by": by, "at": now, **told}
    document = {**document, "updates": [*known, added]}
    event = case_event(
        "case.updated",
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        discriminator=identity,
        update=added,
    )
    return Decision(document, [event], document)
