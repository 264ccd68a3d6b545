"""Links between cases: what one of the two says, and how many there may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.bus.errors import Refused
from services.intake import linking, related

FULL = {f"case-{number}": {"on": True, "version": 1} for number in range(linking.MOST_LINKS)}


@pytest.mark.parametrize("full", ["a", "b"])
def test_neither_of_two_is_linked_with_more_than_a_case_may(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readable(_intake: Any, _call: Any, case: str) -> dict[str, Any]:
        held = {"address": {"level": "village", "division": "469002104214", "unit": None}}
        return {"case": case, "state": held, "links": FULL if case == full else {}}

    monkeypatch.setattr(related, "readable", readable)
    call: Any = SimpleNamespace(
        body={"case": "b"}, identity=SimpleNamespace(subject="v-214"), trail=None
    )
    intake: Any = SimpleNamespace(county=None, act=None)
    with pytest.raises(Refused) as refused:
        related.link(intake, call, "a", on=True)
    assert (refused.value.facts["case"], refused.value.facts["held_by"]["level"]) == (
        full,
        "village",
    )


def test_a_link_that_is_there_already_needs_no_room() -> None:
    linking.must_have_room({"case": "a", "links": FULL}, "case-7")
