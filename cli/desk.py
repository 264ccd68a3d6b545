"""A desk (受理台) at the command line: who is on duty, and its rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.render import local

Json = Mapping[str, Any]

_COUNTS = {
    "arrived": "came 受理",
    "acknowledged": "accepted 响应",
    "completed": "settled 办结",
    "on_time": "in time 按期办结",
    "overdue": "overdue 超时",
}
_RATES = {"acknowledged": "response", "completed": "completion", "on_time": "on_time"}


def on_duty(places: Iterable[Json], zone: ZoneInfo) -> Table:
    """One line a place: who answers, why, until when, and who is next."""
    table = Table("place", "on duty", "why", "until", "then", box=None, header_style="bold")
    for item in places:
        until = item["until"]
        table.add_row(
            " ".join(filter(None, (item["name"], item["unit_name"]))),
            _named(item["officers"]),
            Text(item["why"], "" if item["why"] == "on duty" else "yellow"),
            local(until, zone) if until else "",
            _named(item["then"]) if until else "",
        )
    return table


def rates(found: Json, zone: ZoneInfo) -> RenderableType:
    """How many of each, and which part of what came; in time, of what was due."""
    table = Table("", "cases", "rate", box=None, header_style="bold")
    for name, title in _COUNTS.items():
        rate = found["rates"].get(_RATES.get(name, name))
        count = str(found["counts"][name])
        if name == "on_time":
            count += f" of {found['counts']['due']}"
        table.add_row(title, count, "" if rate is None else f"{rate:.1%}")
    since = f"{local(found['from'], zone)} to {local(found['to'], zone)}"
    return Group(Text(since, "dim"), table)


def _named(officers: Iterable[Json]) -> str:
    return (
        ", ".join(
            f"{item['name']} (for {item['instead_of']})" if item["instead_of"] else item["name"]
            for item in officers
        )
        or "nobody"
    )
