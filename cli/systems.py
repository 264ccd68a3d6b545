"""Other county systems at the command line: intake keeps what each may, the broker its user.

Two places, and no step that both are part of: each command does first what gives no right, and all
of it can be done again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table

from cli.broker import Broker
from cli.client import Client, Waiting
from cli.failures import Exit, Failure
from cli.render import local
from services.bus.systems import NAME, events_queue, replies_queue, user_of

Json = dict[str, Any]


@contextmanager
def _broker(client: Client) -> Iterator[Broker | None]:
    if client.stack.broker is None:
        yield None
        return
    broker = Broker(client.stack.broker, client.stack.vhost)
    try:
        # Before anything is changed at intake: a new key would be gone unseen.
        broker.must_answer()
        yield broker
    finally:
        broker.close()


def add(client: Client, name: str, body: Json) -> Json:
    """Adds a system; ``key`` and ``password`` are there if they are new."""
    with _broker(client) as broker:
        # Intake first: it checks the name, and without its consent a broker user is of no use.
        found = client.add_system(name, body)
        return {**found, **_provided(broker, found, renew=False)}


def rotate(client: Client, name: str, *, sole: bool) -> Json:
    """A new key and a new password."""
    with _broker(client) as broker:
        found = client.rotate_key(name, sole=sole)
        return {**found, **_provided(broker, found, renew=True)}


def remove(client: Client, name: str) -> Json:
    """Takes a system away at both; ``amqp`` is None if its broker user, if it has one, stays."""
    with _broker(client) as broker:
        try:
            found = client.remove_system(name)
        except Failure as failure:
            # The last time may have ended in between: then the user is there still, and reads.
            gone = failure.code is Exit.NOT_FOUND and NAME.fullmatch(name)
            if not gone or broker is None or not broker.has(name):
                raise
            found = {"name": name, "removed": True}
        if broker is None:
            return {**found, "amqp": None}
        broker.remove(name)
        return {**found, "amqp": {"user": user_of(name)}}


def subscribe(client: Client, name: str, body: Json) -> Json:
    """Says anew what a system is sent, and binds its queue so."""
    with _needed(client) as broker:
        found = client.subscribe(name, body)
        return {**found, **_provided(broker, found, renew=False)}


def unsubscribe(client: Client, name: str) -> Json:
    """Ends what a system is sent; what waits for it is gone."""
    with _needed(client) as broker:
        found = client.unsubscribe(name)
        return {**found, **_provided(broker, found, renew=False)}


def repair(client: Client, names: Iterable[str]) -> list[Json]:
    """Makes at the broker what intake says of systems, all if none is named.

    One whose user is gone, as when the broker was made anew, gets a new password.
    """
    with _needed(client) as broker:
        known = {each["name"]: each for each in client.systems()}
        for name in names:
            if name not in known:
                raise Failure(Exit.NOT_FOUND, f"there is no system {name}: huashi system list")
        return [
            {**known[name], "key": None, **_provided(broker, known[name], renew=False)}
            for name in names or known
        ]


@contextmanager
def _needed(client: Client) -> Iterator[Broker]:
    with _broker(client) as broker:
        if broker is None:
            raise Failure(
                Exit.USAGE,
                "HUASHI_BROKER is not set: write https://provisioner:PASSWORD@HOST:15671",
            )
        yield broker


def replay(
    client: Client, name: str, start: str, end: str | None, tell: Callable[[str], None]
) -> Json:
    """Has intake put into a system's queue once more what it received between two times.

    As long as too much waits in the queue, the system has to read first: ``tell`` hears of it.
    """
    body: Json = {"from": start, **({"to": end} if end else {})}
    sums = {"looked": 0, "published": 0}
    while True:
        page = client.replay(name, body)
        if isinstance(page, Waiting):
            tell(page.why)
            time.sleep(page.seconds)
            continue
        sums = {each: sums[each] + page[each] for each in sums}
        if page["next"] is None:
            return {"name": name, "from": start, "to": page["to"], **sums}
        body |= {"to": page["to"], "cursor": page["next"]}


def _provided(broker: Broker | None, found: Json, *, renew: bool) -> Json:
    if broker is None:
        return {"amqp": None}
    name = found["name"]
    password = secrets.token_urlsafe(32) if renew or not broker.has(name) else None
    subscribed = found["subscription"] is not None
    broker.provide(name, password, found["bindings"] if subscribed else None)
    account = {
        "user": user_of(name),
        "replies": replies_queue(name),
        "events": events_queue(name) if subscribed else None,
        "password": password,
    }
    return {"amqp": account}


def made(found: Json) -> list[str]:
    """What to hand to whoever runs the system; it is not shown again."""
    lines = [f"{found['name']} may send {', '.join(found['may']) or 'nothing'}"]
    if found["reads"]:
        lines.append(f"and read       {', '.join(found['reads'])}")
    if found["unit"] is not None:
        lines.append(f"for the unit   {found['unit']}")
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
        if amqp["events"]:
            lines.append(f"events in      {amqp['events']}")
    if found["key"] or (amqp and amqp["password"]):
        lines.append("Neither is shown again: huashi system rotate makes new ones.")
    return lines


def listed(found: Iterable[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    """All systems."""
    columns = (
        *("system", "may", "reads", "divisions", "unit", "a second", "open cases", "keys since"),
        *("is sent", "lost"),
    )
    table = Table(*columns, box=None, header_style="bold")
    for each in found:
        table.add_row(
            each["name"],
            ", ".join(each["may"]),
            ", ".join(each["reads"]),
            ", ".join(each["divisions"]) or "the whole county",
            each["unit"] or "",
            str(each["rate"]),
            str(each["open_cases"]),
            ", ".join(local(key["since"], zone) for key in each["keys"]),
            _sent(each["subscription"]),
            str(each["lost"]["count"]) if each["lost"] else "",
        )
    return table


def _sent(subscription: Mapping[str, Any] | None) -> str:
    if subscription is None:
        return ""
    parts = [
        ", ".join(subscription["types"]) or "all that it may read",
        *(f"at {', '.join(levels)}" for levels in [subscription["levels"]] if levels),
        *(f"below {', '.join(codes)}" for codes in [subscription["divisions"]] if codes),
    ]
    return " ".join(parts)


def one(found: Mapping[str, Any], zone: ZoneInfo) -> list[str]:
    """All that is known of a system."""
    lines = [
        f"{found['name']}, since {local(found['added'], zone)}",
        f"sends          {', '.join(found['may']) or 'nothing'}",
        f"may read       {', '.join(found['reads']) or 'nothing'}",
        f"divisions      {', '.join(found['divisions']) or 'the whole county'}",
        f"limits         {found['rate']} events a second, {found['open_cases']} open cases",
        *(
            f"API key        {key['id']}, since {local(key['since'], zone)}"
            for key in found["keys"]
        ),
        f"is sent        {_sent(found['subscription']) or 'nothing'}",
        *(f"binding        {key}" for key in found["bindings"]),
    ]
    if found["lost"]:
        lost = found["lost"]
        since, until = (local(lost[name], zone) for name in ("since", "until"))
        lines.append(f"lost           {lost['count']} events, from {since} to {until}")
        again = f"huashi system replay {found['name']} --from {lost['since']}"
        lines.append(f"               sends them again: {again}")
    return lines


def refused(found: Iterable[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    """What was refused, and why."""
    table = Table("at", "system", "door", "id", "type", "why", box=None, header_style="bold")
    for each in found:
        event = each["event"]
        why = "; ".join(f"{error['field']}: {error['detail']}" for error in event["errors"])
        named = (event["id"] or "", (event["type"] or "").removeprefix("huashi."))
        table.add_row(local(each["at"], zone), each["system"], each["door"], *named, why)
    return table
