"""What another county system is on the broker: a user, its rights, its queues, their limits.

``huashi system add`` makes them through RabbitMQ's management API, as :data:`PROVISIONER`; no
service has the right to. Each system has a queue of its own on the way in, so that one that sends
too much fills that, and holds up nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.bus.topology import (
    DEAD,
    DELIVERY_LIMIT,
    EVENTS,
    INBOUND,
    REPLAYS,
    REPLIES,
    SYSTEM_NAME,
    work_queue,
)
from services.grid.events import EventType

NAME = re.compile(SYSTEM_NAME)
MAX_CONNECTIONS, MAX_CHANNELS = 5, 20
"""How many a system's user may have."""
WAITING = 10_000
"""So many messages wait in a queue of a system, or so many bytes; then the broker takes no more.

Of answers that nobody fetches it forgets the oldest.
"""
WAITING_BYTES = 64 * 1024 * 1024
EVENTS_WAITING = 50_000
"""So many events wait for a system that subscribes, or so many bytes; then the oldest are lost."""
EVENTS_WAITING_BYTES = 128 * 1024 * 1024
_LOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class OfSystems(EventType):
    """A type that other systems send, or are told: on an exchange for that, under their name.

    Its schema has an ``example`` and a ``minimal`` one.
    """

    exchange: str = INBOUND

    @property
    def channel(self) -> str:
        """See :class:`EventType`: some of our own events have the names of what systems send."""
        return f"inbound.{self.name}" if self.exchange == INBOUND else self.name

    @property
    def key(self) -> str:
        """The routing key, with the name of the ``{system}``."""
        return f"{{system}}.{self.name.removeprefix('reply.')}"


class QueueOf(NamedTuple):
    """A queue of a system: its name and arguments, and its bindings, pairs of exchange and key."""

    name: str
    arguments: dict[str, Any]
    bindings: list[tuple[str, str]]


def user_of(name: str) -> str:
    """The broker user of a system, and as whom it reports; no service is called so."""
    return f"system.{name}"


def inbound_queue(name: str) -> str:
    """Where what a system sends waits for intake."""
    return f"intake.inbound.{name}"


def replies_queue(name: str) -> str:
    """Where the answers wait for the system."""
    return f"system.{name}.replies"


def events_queue(name: str) -> str:
    """Where the events that it subscribed to wait for the system."""
    return f"system.{name}.events"


def lost_queue(name: str) -> str:
    """Where the broker puts what the system's queue of events has dropped."""
    return f"intake.lost.{name}"


def queues(name: str) -> list[QueueOf]:
    """The queues that each system has."""
    inbound, limits = inbound_queue(name), {"x-max-length": WAITING}
    return [
        QueueOf(
            inbound,
            {
                **work_queue(f"parked.{inbound}"),
                **limits,
                "x-max-length-bytes": WAITING_BYTES,
            },
            [(INBOUND, f"{name}.#")],
        ),
        QueueOf(
            replies_queue(name),
            {"x-queue-type": "quorum", "x-overflow": "drop-head", **limits},
            [(REPLIES, f"{name}.#")],
        ),
    ]


def subscribed_queues(name: str, keys: Sequence[str]) -> list[QueueOf]:
    """The queues of a system that subscribed to events under these binding keys.

    That of what is lost is small, and full it takes no more: its first says since when.
    """
    letters = f"lost.{name}"
    return [
        QueueOf(
            lost_queue(name),
            {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-max-length": WAITING,
                "x-max-length-bytes": _LOST_BYTES,
            },
            [(DEAD, letters)],
        ),
        QueueOf(
            events_queue(name),
            {
                "x-queue-type": "quorum",
                "x-overflow": "drop-head",
                "x-max-length": EVENTS_WAITING,
                "x-max-length-bytes": EVENTS_WAITING_BYTES,
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": DEAD,
                "x-dead-letter-routing-key": letters,
            },
            [(REPLAYS, f"{name}.#"), *((EVENTS, key) for key in keys)],
        ),
    ]


def permissions(name: str) -> dict[str, str]:
    """What its user may: make nothing, write to the exchange for it, read its own queues."""
    return {
        "configure": "^$",
        "write": f"^{re.escape(INBOUND)}$",
        "read": f"^system\\.{name}\\.[a-z0-9_]+$",
    }


def topic_permissions(name: str) -> dict[str, str]:
    """Under which keys it may write: its own. Without such a line RabbitMQ lets it use any."""
    return {"exchange": INBOUND, "write": f"^{name}\\.[a-z][a-z0-9_.]*$", "read": "^$"}


def limits() -> dict[str, int]:
    """The limits of its user."""
    return {"max-connections": MAX_CONNECTIONS, "max-channels": MAX_CHANNELS}
