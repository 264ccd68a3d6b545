"""A desk (受理台) at the command line: who is on duty, and its rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.render import left, local
from services.grid.clock import Instant

Json = Mapping[str, Any]

_COUNTS = {
    "arrived": "came 受理",
    "acknowledged": "accepted 响应",
    "completed": "settled 办结",
    "on_time": "in time 按期办结",
    "overdue": "overdue 超时",
}
_CALLS = {
    "check_in": ("checked_in", "checked in in time 按期报到"),
    "finish": ("finished", "finished in time 按期完成"),
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
    for row in _of_calls(found["calls"]):
        table.add_row(*row)
    since = f"{local(found['from'], zone)} to {local(found['to'], zone)}"
    return Group(Text(since, "dim"), table)


def _of_calls(found: Json) -> Iterable[tuple[str, str, str]]:
    """What units made of being called, where any was."""
    counts, of = found["counts"], found["rates"]
    if not counts["called"]:
        return
    yield "called 吹哨", str(counts["called"]), ""
    for kind, (name, title) in _CALLS.items():
        rate = "" if of[kind] is None else f"{of[kind]:.1%}"
        yield title, f"{counts[f'{name}_on_time']} of {counts[f'{name}_due']}", rate
    if of["score"] is not None:
        yield "scored 评价", str(counts["scored"]), f"{of['score']:.1f} of 5"


def calls(found: Iterable[Json], now: Instant) -> Table:
    """One line a call: the unit, the case, and by when it must come or be done."""
    table = Table("call", "unit", "case", "title", "status", "due", box=None, header_style="bold")
    for item in found:
        waits = {"called": "check_in", "checked_in": "finish"}.get(item["status"])
        table.add_row(
            item["id"],
            item["address"]["unit"] + (" (lead 牵头)" if item["lead"] else ""),
            item["tracking"],
            item["title"],
            item["status"],
            left(item[waits]["due"], now) if waits else "",
        )
    return table


def _named(officers: Iterable[Json]) -> str:
    return (
        ", ".join(
            f"{item['name']} (for {item['instead_of']})" if item["instead_of"] else item["name"]
            for item in officers
        )
        or "nobody"
    )
