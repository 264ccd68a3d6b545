"""The directory at the command line: files of people, units and duty, and what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table

from cli.client import Client
from cli.failures import Exit, Failure
from cli.render import local
from services.grid import profile_source
from services.grid.directory_source import read_duties, read_officers, read_units
from services.grid.problems import ProfileError

Json = Mapping[str, Any]

MOST = 200
"""How many entries intake changes at once."""
_KINDS = {"divisions": "division", "units": "unit", "officers": "officer", "duties": "duty"}
_STRETCHES = ("shifts", "leaves", "stand_ins")
_READERS: dict[str, tuple[str, Callable[[Path], list[Json]]]] = {
    "units.csv": ("units", lambda path: [asdict(unit) for unit in read_units(path)]),
    "officers.csv": ("officers", lambda path: [asdict(item) for item in read_officers(path)]),
    "duty.csv": (
        "duties",
        lambda path: [{"officer": name, **said} for name, said in read_duties(path).items()],
    ),
}


def read(path: Path) -> dict[str, list[Json]]:
    """``{units, officers, duties}`` of a folder, of one of its CSV files, or of a YAML file.

    :raises Failure: what is wrong, with file and line.
    """
    files = [path / name for name in _READERS if (path / name).exists()] if path.is_dir() else []
    if not path.is_dir() and path.name in _READERS:
        files = [path]
    try:
        if files:
            return {what: reader(file) for file in files for what, reader in [_READERS[file.name]]}
        if path.suffix in (".yaml", ".yml"):
            return _lists(path, profile_source.read(path).rules)
    except ProfileError as error:
        raise Failure(Exit.USAGE, str(error)) from error
    names = ", ".join(_READERS)
    raise Failure(Exit.USAGE, f"{path} is no folder with {names}, none of these, and no .yaml file")


def _lists(path: Path, found: Any) -> dict[str, list[Json]]:
    if not isinstance(found, dict) or not all(
        name in _KINDS and isinstance(value, list) and all(isinstance(item, dict) for item in value)
        for name, value in found.items()
    ):
        said = f"write lists under {', '.join(_KINDS)}, see docs/operating/directory.md"
        raise Failure(Exit.USAGE, f"{path}: {said}")
    return found


def different(client: Client, said: Mapping[str, Iterable[Json]]) -> dict[str, list[Json]]:
    """Of what files say, what the directory does not say already."""
    found: dict[str, list[Json]] = {}
    for what, entries in said.items():
        known = {item["id"]: item["entry"] for item in client.directory(_KINDS[what])}
        identity = {"duties": "officer", "divisions": "code"}.get(what, "id")

        def is_new(entry: Json, known: Json = known, of: str = identity, what: str = what) -> bool:
            there = known.get(f"{_KINDS[what]}:{entry.get(of)}")
            return there is None or any(there.get(name) != value for name, value in entry.items())

        found[what] = [entry for entry in entries if is_new(entry)]
    count = sum(map(len, found.values()))
    if count > MOST:
        cure = "apply files one after the other, or put them into the profile's folder"
        differ = f"{count} entries differ, and at most {MOST} are changed at once"
        raise Failure(Exit.USAGE, f"{differ}: {cure}")
    return {what: entries for what, entries in found.items() if entries}


def changes(found: Iterable[Json]) -> Table:
    """What becomes of each entry."""
    table = Table("entry", "", box=None, header_style="bold")
    for item in found:
        table.add_row(item["id"], item["change"])
    return table


def listed(entries: Iterable[Json], zone: ZoneInfo) -> Table:
    """Entries of one kind, one a row."""
    table = Table("id", "", "where", "since", "by", box=None, header_style="bold")
    for item in entries:
        entry = item["entry"]
        words = [entry.get("name"), entry.get("role"), entry.get("unit")]
        words += [f"{len(entry[name])} {name}" for name in _STRETCHES if entry.get(name)]
        where = " ".join(filter(None, [entry.get("level"), entry.get("code") or entry["division"]]))
        shown = "  ".join(word for word in words if word)
        table.add_row(item["id"], shown, where, local(item["changed_at"], zone), item["origin"])
    return table
