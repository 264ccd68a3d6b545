"""Every event type is a contract: a producer, a consumer, an example that is still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.bus import topology
from services.bus.config import SERVICES
from services.grid.events import CATALOGUE, Event

EXAMPLES = Path(__file__).parent / "examples"
LEVELS = ("household", "group", "village", "township")


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_released_example_of_each_type_is_read_as_it_stands(name: str) -> None:
    path = EXAMPLES / f"{name}.json"
    assert path.exists(), f"{name} has no example: add {path.name}"
    written = json.loads(path.read_text())
    event = Event.read(path.read_bytes())
    assert event.full_type == name
    assert json.loads(event.body()) == written


def test_every_example_is_of_a_type_that_there_is() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(CATALOGUE)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_type_has_a_meaning_and_somebody_at_both_ends(name: str) -> None:
    kind = CATALOGUE[name]
    assert kind.meaning.endswith(".")
    assert kind.producers
    assert kind.consumers
    assert {*kind.producers, *kind.consumers} <= set(SERVICES)


def test_each_type_reaches_a_queue_of_each_of_its_consumers() -> None:
    bound = {
        (owner.service, key.removesuffix(".#").removesuffix(f".{owner.level}"))
        for owner in topology.instances(LEVELS)
        for _queue, key in topology.bindings(owner)
    }
    assert bound == {
        (service, kind.name) for kind in CATALOGUE.values() for service in kind.consumers
    }


def test_no_event_of_a_case_has_room_for_who_reported_it() -> None:
    for path in EXAMPLES.glob("huashi.case.*.json"):
        assert "reporter" not in path.read_text()
        assert "phone" not in path.read_text()
