"""Merging is a maximum: the events of any history, in any order, any number of times."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.bus.fold import Document
from services.dispatch import model as dispatch
from services.escalation import model as escalation
from services.grid.clock import Instant
from services.grid.events import Event, of_consumer
from services.intake import model as intake
from tests.simulator.history import HEADER, of_seed, play
from tests.simulator.world import World

LATER = Instant("2030-01-01T00:00:00.000Z")


def world_after(seed: int) -> World:
    """A history whose clocks agree: whoever has nobody on duty is skipped."""
    same_time = bytes([3, *bytes(HEADER - 1)])
    return play(same_time + of_seed(seed)[HEADER:]).world


def events_of_a_history(seed: int) -> list[Event]:
    return [Event.read(sent.body) for sent in world_after(seed).published]


def folded(
    events: list[Event], key: Callable[[Event], str], merge: Callable[..., Document], *more: Any
) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for event in events:
        documents[key(event)] = merge(documents.get(key(event)), event, *more)
    return documents


def read_by(service: str, events: list[Event]) -> list[Event]:
    types = {kind.name for kind in of_consumer(service) if kind.name.startswith("case.")}
    return [event for event in events if event.type in types]


def shuffled(random: Random, events: list[Event]) -> list[Event]:
    again = events + [event for event in events if random.random() < 0.3]
    random.shuffle(again)
    return again


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_register_custody_and_docket_do_not_depend_on_the_order(seed: int) -> None:
    random = Random(seed)
    events = events_of_a_history(seed)
    for service, key, merge, more in (
        ("intake", intake.key, intake.merge, ()),
        ("escalation", escalation.key, escalation.merge, (LATER,)),
        ("dispatch", dispatch.key, dispatch.merge, ()),
    ):
        read = read_by(service, events)
        expected = folded(shuffled(random, read), key, merge, *more)
        assert folded(shuffled(random, read), key, merge, *more) == expected, service
        # A second reading of everything, after everything, changes nothing.
        for event in read:
            before = expected[key(event)]
            assert merge(before, event, *more) == before, (service, event.type)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_id_means_one_event(seed: int) -> None:
    bodies: dict[str, bytes] = {}
    for event in events_of_a_history(seed):
        assert bodies.setdefault(event.id, event.body()) == event.body(), event.type


def test_a_fold_never_changes_the_document_that_it_was_given() -> None:
    world = world_after(7)
    events = read_by("escalation", [Event.read(sent.body) for sent in world.published])
    documents: dict[str, Document] = {}
    for event in events:
        before = documents.get(event.subject)
        copy = repr(before)
        merged = escalation.merge(before, event, LATER)
        decided = escalation.decide(merged, world.atlas, LATER).document
        assert repr(before) == copy
        assert decided is not None
        documents[event.subject] = decided
