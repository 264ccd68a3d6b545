"""What happened to the cases of other systems, kept for those who ask for it in turn.

Over AMQP a system is told (:mod:`services.intake.replies`); who polls, as Open311 clients do, needs
it in the order in which intake heard of it: what comes late, after an outage or from a desk whose
clock is slow, is then seen, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.bus.fold import Document
from services.bus.systems import user_of
from services.grid.clock import Instant
from services.grid.events import Event
from services.intake import replies

_SYSTEM = user_of("")


def entries(told: Iterable[tuple[Event, Document | None]], now: Instant) -> list[dict[str, Any]]:
    """What is kept of events, each with its case as the register has it."""
    return [
        {
            "_id": event.id,
            "by": document["report"]["by"],
            "case": event.subject,
            "at": now,
            "type": event.type,
            "facts": event.data["case"],
            "state": {name: event.data["state"][name] for name in ("token", "address")},
            "outcome": (event.data["state"].get("resolution") or {}).get("outcome"),
        }
        for event, document in told
        if document is not None and _is_of_a_system(document) and _is_news(event)
    ]


def _is_of_a_system(document: Document) -> bool:
    return str((document["report"] or {}).get("by") or "").startswith(_SYSTEM)


def _is_news(event: Event) -> bool:
    # Who reported it knows that.
    return replies.tells(event) and event.type != "case.reported"
