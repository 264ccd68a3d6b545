"""What the timeline tells notify, so that subscribers get what they missed: bounded pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.grid.clock import Instant
from services.intake.store import Timeline

PAGE = 500
"""Most entries that are looked at for one answer."""


def happened(
    timeline: Timeline, at: Instant, key: str, types: Sequence[str], limit: int
) -> dict[str, Any]:
    """A page of the events that intake has heard of since, in the order in which it did.

    :param at: when intake heard of the last one before, ``key`` its id.
    :param types: the short types that are wanted.
    :returns: ``{events, at, key, more}``: the events (:meth:`Event.as_document`), where the next
        page begins, and whether there may be one.
    """
    limit = min(limit, PAGE)
    entries = timeline.since(at, key, limit)
    last = entries[-1] if entries else {"received": at, "_id": key}
    return {
        "events": [_event(entry) for entry in entries if entry["type"] in types],
        "at": last["received"],
        "key": last["_id"],
        "more": len(entries) == limit,
    }


def _event(entry: Mapping[str, Any]) -> dict[str, Any]:
    # What was kept before versions were is of the first.
    return {
        "id": entry["_id"],
        "type": entry["type"],
        "version": entry.get("version", 1),
        "subject": entry["case"],
        "time": entry["time"],
        "source": entry["source"],
        "data": entry["data"],
        "traceparent": entry.get("traceparent"),
        "extensions": entry.get("extensions", {}),
    }
