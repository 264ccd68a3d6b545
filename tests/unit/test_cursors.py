"""The cursor of the notice board says nothing to whoever reads it."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet

from services.bus.paging import Cursor
from services.bus.problems import Problem
from services.intake import board
from services.intake.cursors import SealedCursors

KEY = Fernet.generate_key().decode()
PLACE = Cursor("2026-03-02T08:15:42.123Z", "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e")


def test_a_sealed_cursor_is_read_back_and_shows_neither_time_nor_case() -> None:
    sealed = SealedCursors(KEY).text(PLACE.text())
    assert sealed is not None
    shown = base64.urlsafe_b64decode(sealed)
    for part in (PLACE.value[:10], PLACE.key[:8], PLACE.key):
        assert part.encode() not in shown
        assert part not in sealed
    # Any process of intake reads it, and the same page has the same tag.
    assert SealedCursors(KEY).read(sealed) == PLACE
    assert SealedCursors(KEY).text(PLACE.text()) == sealed
    assert SealedCursors(KEY).text(None) is None


@pytest.mark.parametrize(
    "text", ["x", "eA", "é", PLACE.text(), "A" * 80, base64.urlsafe_b64encode(b"short").decode()]
)
def test_anything_else_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        SealedCursors(KEY).read(text)
    intake: Any = SimpleNamespace(cursors=SealedCursors(KEY))
    with pytest.raises(Problem, match="cursor: not a cursor"):
        board._cursor(intake, text)


def test_one_of_another_service_is_none() -> None:
    sealed = SealedCursors(Fernet.generate_key().decode()).text(PLACE.text())
    with pytest.raises(ValueError, match="not a cursor"):
        SealedCursors(KEY).read(sealed or "")
