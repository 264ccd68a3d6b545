"""A desk (受理台) at the command line: who is on duty, its rates, and what an act shows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.failures import Exit, Failure
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
_ATTACHED = re.compile(r"(?P<what>.+?)=(?P<url>https?://.+)", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")
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


def extensions(found: Iterable[Json], zone: ZoneInfo) -> Table:
    """One line for each that is asked for: how much more time, why, and what was answered."""
    heads = ("extension", "case", "title", "asked by", "more", "due now", "why", "status")
    table = Table(*heads, box=None, header_style="bold")
    for item in found:
        due = item["due"]
        table.add_row(
            item["id"],
            item["tracking"],
            item["title"],
            item["asked_by"],
            item["by"],
            local(due, zone) if due else "",
            item["reason"],
            item["status"],
        )
    return table


def attached(items: Iterable[str] | None) -> dict[str, Any]:
    """The ``attachments`` of ``--attach FILE=URL``, as a body has them; none if there are none.

    The file lies at the URL already: its digest is made here, and nothing is sent there.

    :raises Failure: it is written otherwise, or the file can't be read.
    """
    found = []
    for item in items or ():
        read = _ATTACHED.fullmatch(item)
        if read is None:
            said = f"--attach {item}: write FILE=URL, or the file's SHA-256 digest in its place"
            raise Failure(Exit.USAGE, said)
        what, url = read["what"], read["url"]
        if _DIGEST.fullmatch(what):
            found.append({"url": url, "sha256": what})
            continue
        try:
            with Path(what).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Failure(Exit.USAGE, f"--attach {what} can't be read: {error}") from error
        found.append({"url": url, "sha256": digest, "name": Path(what).name})
    return {"attachments": found} if found else {}


def _named(officers: Iterable[Json]) -> str:
    return (
        ", ".join(
            f"{item['name']} (for {item['instead_of']})" if item["instead_of"] else item["name"]
            for item in officers
        )
        or "nobody"
    )
