"""Pages of the timeline for notify, on MongoDB: all of it comes, however long its events are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from services.grid.clock import FrozenClock, Instant, plus
from services.grid.events import Event
from services.intake import replay
from services.intake.store import Timeline

NOW = FrozenClock().now()
LARGEST_MESSAGE = 1024 * 1024
"""Of the broker (``max_message_size``)."""


@pytest.fixture
def timeline(database: Any) -> Timeline:
    store = Timeline(database["timeline"])
    store.ensure_indexes()
    return store


def event(number: int, text: str, kind: str = "case.noted") -> Event:
    return Event(
        id=f"e-{number:03}",
        type=kind,
        subject="case-1",
        time=NOW,
        source="huashi/dispatch/village",
        data={"note": text},
    )


def pages(timeline: Timeline, types: Sequence[str]) -> list[list[str]]:
    """The ids of each page; none is more than the broker takes, as nameko writes it."""
    found, at, key, more = [], Instant(plus(NOW, -1)), "", True
    while more:
        page = replay.happened(timeline, at, key, types, 200)
        assert len(json.dumps({"result": page})) < LARGEST_MESSAGE - 1000
        assert page["events"] or not page["more"]
        found.append([each["id"] for each in page["events"]])
        at, key, more = page["at"], page["key"], page["more"]
    return found


@pytest.mark.parametrize("char", ["a", "字", "\U0001f000"])
def test_long_events_come_in_more_pages_and_all_of_them(timeline: Timeline, char: str) -> None:
    longest = char * (250_000 // len(char.encode()))
    texts = [longest, *["短"] * 5, longest, *[char * 20_000] * 30, longest]
    timeline.append([event(number, text) for number, text in enumerate(texts)], NOW)
    found = pages(timeline, ["case.noted"])
    assert [each for page in found for each in page] == [f"e-{n:03}" for n in range(len(texts))]


def test_what_is_not_asked_for_takes_no_room(timeline: Timeline) -> None:
    long = [event(number, "字" * 20_000, "case.updated") for number in range(50)]
    timeline.append([*long, event(50, "短")], NOW)
    assert pages(timeline, ["case.noted"]) == [["e-050"]]
