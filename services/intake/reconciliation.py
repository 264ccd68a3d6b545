"""What the register tells the reconciler (in the escalation service): bounded pages by key."""

from __future__ import annotations

from typing import Any

from services.bus.fold import Record
from services.intake.store import Register

PAGE = 500
"""Most cases of one answer."""


def open_cases(register: Register, after: str, limit: int) -> list[dict[str, Any]]:
    """Cases that somebody holds, behind the case ``after`` in the order of ids."""
    held = {"document.state.token.stage": "held"}
    return [_told(record, whole=False) for record in register.after(held, after, min(limit, PAGE))]


def cases_of(register: Register, cases: list[str], *, whole: bool) -> list[dict[str, Any]]:
    """Those of these cases that the register has.

    :param whole: with facts and state, for a repair; else only the token.
    """
    return [_told(record, whole=whole) for record in register.read(cases[:PAGE]).values()]


def _told(record: Record, *, whole: bool) -> dict[str, Any]:
    document = record.document or {}
    return {
        "case": record.key,
        "token": document["state"]["token"],
        "unpublished": bool(record.unpublished),
        **({name: document[name] for name in ("facts", "state")} if whole else {}),
    }
