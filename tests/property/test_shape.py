"""The quick look at an event agrees with its schema."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from services.grid.events import CATALOGUE, Event
from tests.property.test_merging import events_of_a_history

RUBBISH: list[Any] = [
    None, True, 0, -1, 1.5, "", "x", "2026-02-30T00:00:00.000Z", "2026-02-28T00:00:00Z",
    "2026-02-28T00:00:00.000Z", [], {}, [None], {"x": 1}, "46900210421403007", "held",
    "13812345678", 2**70, "household\n",
]  # fmt: skip
EVENTS = {event.type: event for seed in range(100) for event in events_of_a_history(seed)}


def test_events_of_our_own_are_recognised() -> None:
    assert len(EVENTS) > 8
    for event in EVENTS.values():
        if event.type.startswith("case."):
            assert CATALOGUE[event.full_type].exact(event.data), event.type


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_what_is_recognised_is_what_the_schema_makes_of_it(data: st.DataObject) -> None:
    event: Event = EVENTS[data.draw(st.sampled_from(sorted(EVENTS)))]
    kind = CATALOGUE[event.full_type]
    changed = copy.deepcopy(event.data)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(changed)[1:] or [("x",)]))
        parent: Any = changed
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()) and isinstance(parent, dict):
            parent.pop(path[-1], None)
        else:
            parent[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(RUBBISH)))
    if kind.exact(changed):
        assert kind.loader.load(copy.deepcopy(changed)) == changed
    else:
        try:
            loaded = kind.loader.load(copy.deepcopy(changed))
        except ValidationError:
            return
        # The schema completes it, and then it is recognised.
        assert kind.exact(loaded)
