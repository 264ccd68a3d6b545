"""What a desk tells the reconciler (in the escalation service): bounded pages by key."""

from __future__ import annotations

from typing import Any

from services.bus.fold import Record
from services.dispatch import calls, model
from services.dispatch.store import Docket

PAGE = 500
"""Most entries of one answer."""


def live_entries(docket: Docket, after: str, limit: int) -> list[dict[str, Any]]:
    """Live entries behind the key ``after`` in the order of keys."""
    live = {"document.status": "live"}
    return [_told(record, whole=False) for record in docket.after(live, after, min(limit, PAGE))]


def entries_of(
    docket: Docket, places: list[tuple[str, int, int]], *, whole: bool
) -> list[dict[str, Any]]:
    """Those of these entries that the docket has.

    :param places: case, round and hop of each.
    :param whole: with facts and state, for a repair.
    """
    keys = [model.entry_key(*place) for place in places]
    return [_told(record, whole=whole) for record in docket.read(keys[:PAGE]).values()]


def calls_of(docket: Docket, wanted: list[str]) -> list[str]:
    """Those of these calls of its units (吹哨), by their ids, of which the desk knows."""
    keys = {calls.key(identity): identity for identity in wanted[:PAGE]}
    return [keys[key] for key in docket.read(list(keys))]


def _told(record: Record, *, whole: bool) -> dict[str, Any]:
    """``token`` and ``address`` are none while only the entry's release is known.

    ``held`` is the token of who held the case after this entry, if its release told one.
    """
    document = record.document or {}
    told = {name: document[name] for name in ("case", "round", "hop", "status", "ended")}
    state = document["state"] or {}
    return {
        "key": record.key,
        **told,
        "token": state.get("token"),
        "address": state.get("address"),
        "held": document["held"] and document["held"]["token"],
        "unpublished": bool(record.unpublished),
        **({"facts": document["facts"], "state": document["state"]} if whole else {}),
    }
