"""Making a case's next event: the whole state, the routing key and the stable id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.grid.clock import Instant
from services.grid.directory import Directory
from services.grid.events.envelope import Event, event_id, traceparent_of
from services.grid.tokens import Address, Token


def case_event(
    kind: str,
    *,
    service: str,
    case: str,
    facts: Mapping[str, Any],
    state: Mapping[str, Any],
    now: Instant,
    directory: Directory,
    token: Token | None = None,
    discriminator: str = "",
    addressed: Address | None = None,
    **specific: Any,
) -> Event:
    """An event about a case.

    :param kind: the short type, ``case.escalated``.
    :param service: who says so, ``escalation`` or ``dispatch/household``.
    :param state: the whole state that results; its token identifies the event.
    :param token: instead of the state's, where the event is about another one.
    :param discriminator: what tells two events of one token and type apart.
    :param addressed: whom the event is for; by default who holds the case.
    :param specific: what this type's schema has besides ``case`` and ``state``.
    """
    to = addressed or Address.of(state["address"])
    return Event(
        id=event_id(case, token or Token.of(state["token"]), kind, discriminator),
        type=kind,
        subject=case,
        time=now,
        source=f"huashi/{service}",
        data={"case": dict(facts), "state": dict(state), **specific},
        key=f"{kind}.{to.level}.{directory.path(to.division)}",
        traceparent=traceparent_of(case),
    )
