"""Other county systems at the command line: intake keeps what each may, the broker its user.

Two places, and no step that both are part of: each command does first what gives no right, and all
of it can be done again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table

from cli.broker import Broker
from cli.client import Client
from cli.render import local
from services.bus.systems import replies_queue, user_of

Json = dict[str, Any]


@contextmanager
def _broker(client: Client) -> Iterator[Broker | None]:
    if client.stack.broker is None:
        yield None
        return
    broker = Broker(client.stack.broker, client.stack.vhost)
    try:
        yield broker
    finally:
        broker.close()


def add(client: Client, name: str, body: Json) -> Json:
    """Adds a system; ``key`` and ``password`` are there if they are new."""
    with _broker(client) as broker:
        # Intake first: it checks the name, and without its consent a broker user is of no use.
        found = client.add_system(name, body)
        return {**found, **_provided(broker, name, renew=False)}


def rotate(client: Client, name: str, *, sole: bool) -> Json:
    """A new key and a new password."""
    with _broker(client) as broker:
        found = client.rotate_key(name, sole=sole)
        return {**found, **_provided(broker, name, renew=True)}


def remove(client: Client, name: str) -> Json:
    """Takes a system away at both."""
    with _broker(client) as broker:
        found = client.remove_system(name)
        if broker is not None:
            broker.remove(name)
        return found


def _provided(broker: Broker | None, name: str, *, renew: bool) -> Json:
    if broker is None:
        return {"amqp": None}
    password = secrets.token_urlsafe(32) if renew or not broker.has(name) else None
    broker.provide(name, password)
    account = {"user": user_of(name), "replies": replies_queue(name), "password": password}
    return {"amqp": account}


def made(found: Json) -> list[str]:
    """What to hand to whoever runs the system; it is not shown again."""
    lines = [f"{found['name']} may send {', '.join(found['may'])}"]
    if found["key"]:
        lines.append(f"API key        {found['key']}")
    amqp = found["amqp"]
    if amqp is None:
        lines.append("no broker user was made: set HUASHI_BROKER for one")
    else:
        lines.append(f"AMQP user      {amqp['user']}")
        if amqp["password"]:
            lines.append(f"AMQP password  {amqp['password']}")
        lines.append(f"answers in     {amqp['replies']}")
    if found["key"] or (amqp and amqp["password"]):
        lines.append("Neither is shown again: huashi system rotate makes new ones.")
    return lines


def listed(found: Iterable[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    """All systems."""
    columns = ("system", "may", "divisions", "a second", "open cases", "keys since")
    table = Table(*columns, box=None, header_style="bold")
    for each in found:
        table.add_row(
            each["name"],
            ", ".join(each["may"]),
            ", ".join(each["divisions"]) or "the whole county",
            str(each["rate"]),
            str(each["open_cases"]),
            ", ".join(local(key["since"], zone) for key in each["keys"]),
        )
    return table


def refused(found: Iterable[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    """What was refused, and why."""
    table = Table("at", "system", "door", "id", "type", "why", box=None, header_style="bold")
    for each in found:
        event = each["event"]
        why = "; ".join(f"{error['field']}: {error['detail']}" for error in event["errors"])
        named = (event["id"] or "", (event["type"] or "").removeprefix("huashi."))
        table.add_row(local(each["at"], zone), each["system"], each["door"], *named, why)
    return table
