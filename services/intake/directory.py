"""Intake owns the directory: what the profile folders say becomes ``directory.*`` events.

An entry is ``{kind, version, retired, entry, changed, time, origin, folder, heard}``: its version
grows whenever its content does; what left its folder is retired, never deleted. An operator, or a
system that may, changes people and units while the services run. What was said last counts:
``folder`` is what the folder said last, so that a start with the same folder takes nothing of it
back; ``heard`` are the last events of systems that it was said by, so that one that comes once more
takes nothing back either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NamedTuple

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.grid.atlas import Atlas, entry_key
from services.grid.clock import Instant
from services.grid.directory import Directory, Division
from services.grid.events import Event
from services.grid.events.envelope import event_id, traceparent_of
from services.grid.profile import Loaded

OPERATOR = "operator"
"""The origin of what no folder has said; of what a system has, it is ``system.<name>``."""
_FOLDER = "profile:"
_HEARD = 100


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
        *(("division", _division(division)) for division in loaded.divisions),
        *(("unit", asdict(unit)) for unit in loaded.units),
        *(("officer", asdict(officer)) for officer in loaded.officers),
        *(("duty", asdict(duty)) for duty in loaded.duties),
        *(("holidays", asdict(year)) for year in loaded.holiday_years),
    ]
    return {entry_key(kind, entry): (kind, entry) for kind, entry in entries}


def _division(division: Division) -> dict[str, Any]:
    """Its entry; a division without a point looks as it did before there were any."""
    entry = asdict(division)
    return {name: value for name, value in entry.items() if (name, value) != ("location", None)}


def works(loaded: Loaded, known: Iterable[Document], now: Instant, changed: float) -> list[Work]:
    """The work that makes the collection say what the folder says.

    :param known: the entries that the collection has now; those of this folder's profile
        that it no longer names are retired.
    :param changed: real seconds, by which followers find what is new.
    """
    origin = f"{_FOLDER}{loaded.profile.name}"
    wanted = entries_of(loaded)
    directory = loaded.directory
    gone = {
        entry_key(document["kind"], document["entry"]): document
        for document in known
        if document["origin"] == origin and _said(document) is not None
    }

    def put(kind: str, entry: dict[str, Any], *, retired: bool) -> Work:
        said = None if retired else entry

        def change(record: Record) -> Decision:
            before = record.document
            if before is not None and before["origin"] == origin and _said(before) == said:
                return Decision(before)
            noted = {"origin": origin, "folder": said}
            if before is not None and (before["entry"], before["retired"]) == (entry, retired):
                return Decision({**before, **noted})
            document = {**_next(before, Wanted(kind, entry, retired), now, changed), **noted}
            return Decision(document, [event(document, directory)])

        return Work(entry_key(kind, entry), change)

    puts = [put(kind, entry, retired=False) for kind, entry in wanted.values()]
    retirements = [
        put(document["kind"], document["entry"], retired=True)
        for key, document in gone.items()
        if key not in wanted
    ]
    return puts + retirements


def _said(document: Document) -> dict[str, Any] | None:
    """What the folder that an entry is from said last of it; None if it left it out."""
    present = None if document["retired"] else document["entry"]
    said: dict[str, Any] | None = document.get("folder", present)
    return said


class Wanted(NamedTuple):
    """What an entry is to be; ``retired`` takes it away."""

    kind: str
    entry: dict[str, Any]
    retired: bool = False


def _next(before: Document | None, wanted: Wanted, now: Instant, changed: float) -> Document:
    """The next version of an entry."""
    return {
        "kind": wanted.kind,
        "version": 1 + (before["version"] if before else 0),
        "retired": wanted.retired,
        "entry": wanted.entry,
        "changed": changed,
        "time": now,
    }


def wanted_work(
    wanted: Wanted,
    directory: Directory,
    now: Instant,
    changed: float,
    *,
    origin: str = OPERATOR,
    by: str | None = None,
) -> Work:
    """The work that makes an entry what an operator or a system says; again it changes nothing.

    Its answer is ``new``, ``changed``, ``retired`` or ``unchanged``.

    :param changed: real seconds, by which followers find what is new.
    :param by: the id of the system's event that says so; once more, it says nothing.
    """
    kind, entry, retired = wanted

    def change(record: Record) -> Decision:
        before = record.document
        if before is None and retired:
            raise Refused(f"{entry_key(kind, entry)} is not in the directory")
        known = before.get("heard", []) if before is not None else []
        if by in known:
            return Decision(before, answer="unchanged")
        heard = {"heard": [*known, by][-_HEARD:]} if by is not None else {}
        if before is not None and (before["entry"], before["retired"]) == (entry, retired):
            return Decision({**before, **heard}, answer="unchanged")
        document = {**_next(before, wanted, now, changed), "origin": origin}
        if known:
            document["heard"] = known
        document |= heard
        if before is not None and before["origin"].startswith(_FOLDER):
            document |= {"origin": before["origin"], "folder": _said(before)}
        is_new = before is None or before["retired"]
        word = "retired" if retired else "new" if is_new else "changed"
        return Decision(document, [event(document, directory)], word)

    return Work(entry_key(kind, entry), change)


def names(rules: Any, words: set[str]) -> bool:
    """Whether a profile's rules, as they stand in its YAML, have one of these words as a value."""
    if isinstance(rules, dict):
        return any(names(value, words) for value in rules.values())
    if isinstance(rules, list):
        return any(names(value, words) for value in rules)
    return rules in words if isinstance(rules, str) else False


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
    made = _next(document, Wanted("emergency", entry), now, changed)
    document = {**made, "origin": OPERATOR}
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
