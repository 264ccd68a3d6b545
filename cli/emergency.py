"""Emergency mode (战时机制) at the command line: what a switch would change, and the switch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.client import Client
from cli.render import local

Json = Mapping[str, Any]

_SHOWN = 20


def changes(client: Client, division: str, *, on: bool) -> dict[str, Any]:
    """A dry run: ``{division, on, cases, refused}``, all its pages together."""
    cases: list[Json] = []
    refused: list[Json] = []
    for page in client.emergency_changes(division, on=on):
        cases += page["cases"]
        refused += page["refused"]
    return {"division": division, "on": on, "cases": cases, "refused": refused}


def shown(found: Json, zone: ZoneInfo) -> RenderableType:
    """How many cases go from where to where, and the first of them with their deadlines."""
    if not found["cases"]:
        return Text("no case in flight changes")
    moves = Counter((_level(case, "before"), _level(case, "after")) for case in found["cases"])
    counts = Table("from", "to", "cases", box=None, header_style="bold")
    for (before, after), count in sorted(moves.items()):
        counts.add_row(before, after if after != before else "stays", str(count))
    cases = Table("case", "at", "to resolve by", "then at", "by", box=None, header_style="bold")
    for case in found["cases"][:_SHOWN]:
        cases.add_row(
            case["case"],
            _level(case, "before"),
            _due(case, "before", zone),
            _level(case, "after"),
            _due(case, "after", zone),
        )
    more = len(found["cases"]) - _SHOWN
    return Group(counts, Text(), cases, Text(f"and {more} more" if more > 0 else "", "dim"))


def listed(emergencies: Iterable[Json], zone: ZoneInfo) -> Table:
    """Where it is on, and where it was."""
    table = Table("", "division", "place", "since", "by", "reason", box=None, header_style="bold")
    for item in emergencies:
        word = Text("on", "red") if item["on"] else Text("off", "dim")
        since = local(item["since"], zone)
        table.add_row(word, item["division"], item["name"], since, item["by"], item["reason"])
    return table


def _level(case: Json, when: str) -> str:
    return str(case[when]["address"]["level"])


def _due(case: Json, when: str, zone: ZoneInfo) -> str:
    resolve = [item["due"] for item in case[when]["deadlines"] if item["kind"] == "resolve"]
    return local(resolve[0], zone) if resolve else "passed"
