"""Subscriptions over HTTP at the command line: what was made, and the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table

from cli.render import local

Json = dict[str, Any]


def made(found: Json) -> list[str]:
    """What to hand to whoever runs the sink; the secret is not shown again."""
    lines = [f"{found['id']} sends {_what(found)} to {found['sink']}"]
    if found["rate"] is not None:
        lines.append(f"at most {found['rate']} a minute")
    if found["secret"]:
        lines.append(f"secret  {found['secret']}")
        lines.append("It is not shown again. How to verify: docs/integrating/webhooks.md")
    return lines


def listed(found: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    """All of them, and how each does."""
    columns = ("sends", "to", "status", "waiting", "since", "took something", "why not")
    table = Table(box=None, header_style="bold")
    # It is what the other commands want: never cut short.
    longest = max((len(each["id"]) for each in found), default=0)
    table.add_column("id", min_width=longest)
    for column in columns:
        table.add_column(column, overflow="fold")
    for each in found:
        waited = each["oldest_waiting"]
        table.add_row(
            each["id"],
            _what(each),
            each["sink"],
            each["status"],
            str(each["waiting"]),
            local(waited, zone) if waited else "",
            local(each["delivered_at"], zone) if each["delivered_at"] else "never",
            each["reason"] or "",
        )
    return table


def _what(found: Mapping[str, Any]) -> str:
    types = ", ".join(found["types"]) or "all case events"
    level = f" at {found['level']}" if found["level"] else ""
    return f"{types}{level} of {found['division'] or 'the whole county'}"
