"""Intake owns the directory: what the profile folders say becomes ``directory.*`` events.

An entry is ``{kind, version, retired, entry, changed, time, origin}``: its version grows
whenever its content does; what left its folder is retired, never deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.grid.atlas import Atlas, entry_key
from services.grid.clock import Instant
from services.grid.directory import Directory
from services.grid.events import Event
from services.grid.events.envelope import event_id, traceparent_of
from services.grid.profile import Loaded


def entries_of(loaded: Loaded) -> dict[str, tuple[str, dict[str, Any]]]:
    """Everything that a profile folder says, by key: ``{key: (kind, entry)}``."""
    profile = loaded.profile
    entries = [
        (
            "profile",
            {
                "id": profile.id,
                "name": profile.name,
                "region": profile.region,
                "rules": profile.rules,
            },
        ),
        *(("division", asdict(division)) for division in loaded.divisions),
        *(("unit", asdict(unit)) for unit in loaded.units),
        *(("officer", asdict(officer)) for officer in loaded.officers),
        *(("duty", asdict(duty)) for duty in loaded.duties),
        *(("holidays", asdict(year)) for year in loaded.holiday_years),
    ]
    return {entry_key(kind, entry): (kind, entry) for kind, entry in entries}


def works(loaded: Loaded, known: Iterable[Document], now: Instant, changed: float) -> list[Work]:
    """The work that makes the collection say what the folder says.

    :param known: the entries that the collection has now; those of this folder's profile
        that it no longer names are retired.
    :param changed: real seconds, by which followers find what is new.
    """
    origin = f"profile:{loaded.profile.name}"
    wanted = entries_of(loaded)
    directory = loaded.directory
    gone = {
        entry_key(document["kind"], document["entry"]): document
        for document in known
        if document["origin"] == origin and not document["retired"]
    }

    def put(kind: str, entry: dict[str, Any], *, retired: bool) -> Work:
        def change(record: Record) -> Decision:
            before = record.document
            if before is not None and (before["entry"], before["retired"]) == (entry, retired):
                return Decision(before)
            document = {
                "kind": kind,
                "version": 1 + (before["version"] if before else 0),
                "retired": retired,
                "entry": entry,
                "changed": changed,
                "time": now,
                "origin": origin,
            }
            return Decision(document, [event(document, directory)])

        return Work(entry_key(kind, entry), change)

    puts = [put(kind, entry, retired=False) for kind, entry in wanted.values()]
    retirements = [
        put(document["kind"], document["entry"], retired=True)
        for key, document in gone.items()
        if key not in wanted
    ]
    return puts + retirements


def emergency_key(division: str) -> str:
    """The key of the entry that says whether a division is in emergency mode."""
    return entry_key("emergency", {"division": division})


def switch(
    document: Document | None,
    division: str,
    *,
    on: bool,
    by: str,
    reason: str,
    directory: Directory,
    now: Instant,
    changed: float,
) -> Decision:
    """Switches a division to emergency mode (战时机制) or back; its entry is the answer.

    To switch it on again, while it is on, changes nothing.

    :param changed: real seconds, by which followers find what is new.
    :raises Refused: it is to end and was never switched on.
    """
    before = document["entry"] if document is not None else None
    if before is None and not on:
        raise Refused(f"{division} is not in emergency mode")
    if document is not None and before is not None and before["on"] == on:
        return Decision(document, answer=before)
    number = (before["number"] if before else 0) + (1 if on else 0)
    entry = {
        "division": division,
        "number": number,
        "on": on,
        "since": now,
        "by": by,
        "reason": reason,
    }
    document = {
        "kind": "emergency",
        "version": 1 + (document["version"] if document else 0),
        "retired": False,
        "entry": entry,
        "changed": changed,
        "time": now,
        "origin": "operator",
    }
    return Decision(document, [event(document, directory)], entry)


def event(document: Document, directory: Directory) -> Event:
    """The event that says what an entry is; the same entry always gives the same event."""
    kind, entry = document["kind"], document["entry"]
    key = entry_key(kind, entry)
    place = entry.get("code") or entry.get("division") or entry["region"]
    division = directory.division(place)
    level = entry.get("level") or (division.level if division else "county")
    return Event(
        id=event_id(key, document["version"], f"directory.{kind}"),
        type=f"directory.{kind}",
        subject=key,
        time=document["time"],
        source="huashi/intake",
        data={"version": document["version"], "retired": document["retired"], kind: entry},
        key=f"directory.{kind}.{level}.{directory.path(place)}",
        traceparent=traceparent_of(key),
    )


def republished(documents: Iterable[Document], atlas: Atlas) -> list[Event]:
    """The whole directory once more, for a service that came late; profiles first."""
    ordered = sorted(documents, key=lambda document: document["kind"] != "profile")
    return [event(document, atlas.directory) for document in ordered]
