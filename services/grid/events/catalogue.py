"""Every event type, gathered from the families; what is not here does not exist."""

from __future__ import annotations

from services.grid.events import (
    asks,
    case,
    custodian,
    directory,
    ending,
    merging,
    notification,
    whistle,
)
from services.grid.events.event_type import EventType

CATALOGUE: dict[str, EventType] = {
    kind.full_name: kind
    for kind in (
        *case.TYPES,
        *ending.TYPES,
        *custodian.TYPES,
        *whistle.TYPES,
        *asks.TYPES,
        *merging.TYPES,
        *directory.TYPES,
        *notification.TYPES,
    )
}
"""By full name, ``huashi.case.reported.v1``."""


def of_producer(service: str) -> list[EventType]:
    """What ``service`` emits."""
    return [kind for kind in CATALOGUE.values() if service in kind.producers]


def of_consumer(service: str) -> list[EventType]:
    """What ``service`` reads."""
    return [kind for kind in CATALOGUE.values() if service in kind.consumers]
