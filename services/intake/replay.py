"""Events as they were published, out of the timeline: for notify, in bounded pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.grid import json
from services.grid.clock import Instant
from services.grid.events import Event
from services.intake.store import Timeline

PAGE = 500
"""Most entries that are looked at for one answer."""
# The broker takes no message over 1 MiB, and nameko writes up to three bytes for one of UTF-8.
_BYTES = 256 * 1024


def happened(
    timeline: Timeline, at: Instant, key: str, types: Sequence[str], limit: int
) -> dict[str, Any]:
    """A page of the events that intake has heard of since, in the order in which it did.

    :param at: when intake heard of the last one before, ``key`` its id.
    :param types: the short types that are wanted.
    :returns: ``{events, at, key, more}``: the events (:meth:`Event.as_document`), where the next
        page begins, and whether there may be one. Of long events there are fewer, but one.
    """
    limit = min(limit, PAGE)
    entries = timeline.since(at, key, limit)
    more, size = len(entries) == limit, 0
    events: list[dict[str, Any]] = []
    for entry in entries:
        if entry["type"] in types:
            event = event_of(entry).as_document()
            size += len(json.dumps(event))
            if events and size > _BYTES:
                more = True
                break
            events.append(event)
        at, key = entry["received"], entry["_id"]
    return {"events": events, "at": at, "key": key, "more": more}


def event_of(entry: Mapping[str, Any]) -> Event:
    """The event of an entry of the timeline, as it was published, with its routing key.

    An entry of before versions, keys and traces were kept is of the first version, and has none.
    """
    return Event(
        id=entry["_id"],
        type=entry["type"],
        version=entry.get("version", 1),
        subject=entry["case"],
        time=entry["time"],
        source=entry["source"],
        data=entry["data"],
        key=entry.get("key", ""),
        traceparent=entry.get("traceparent"),
        extensions=entry.get("extensions", {}),
    )
