"""The one step rule, the same on the twins in memory and on real MongoDB and RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from kombu.connection import Connection

from services.bus.errors import BrokerAway, BrokerRefused, Collision, Refused, Reject, Retry
from services.bus.fold import Decision, Fold, Publisher, Record, Store, Work
from services.bus.memory import MemoryBus, MemoryStore
from services.bus.publisher import ConfirmingPublisher
from services.bus.store import MongoStore
from services.bus.topology import EVENTS
from services.grid.clock import FrozenClock
from services.grid.events import Event
from tests.simulator.county import GRID

UNIQUE = "document.code"


def event(name: str, kind: str = "case.acknowledged", key: str | None = None) -> Event:
    return Event(
        id=name,
        type=kind,
        subject="case-1",
        time=FrozenClock().now(),
        source="huashi/test",
        data={"标题": "路灯不亮"},
        key=key or f"{kind}.household.46.90.02",
    )


@dataclass
class Seam:
    """A fold with its store, and what has reached the bus so far."""

    fold: Fold
    store: Store
    clock: FrozenClock
    delivered: Callable[[], list[str]]

    def put(self, key: str, document: dict[str, Any], *events: Event) -> None:
        self.fold.run([Work(key, lambda _record: Decision(document, events))])

    def record(self, key: str) -> Record:
        return self.store.read([key])[key]

    def unpublished(self, key: str) -> list[str]:
        return [entry.event.id for entry in self.record(key).unpublished]


@pytest.fixture
def in_memory() -> Seam:
    clock, store, bus = FrozenClock(), MemoryStore(unique="code"), MemoryBus()
    bus.bind("all", lambda event: event.key.startswith("case."))

    def delivered() -> list[str]:
        return [id_of(body) for body in bus.queues["all"]]

    return Seam(Fold(store, bus, clock), store, clock, delivered)


def id_of(body: bytes) -> str:
    return str(json.loads(body)["id"])


@pytest.fixture
def on_servers(database: Any, vhost_uri: str) -> Iterator[Seam]:
    clock = FrozenClock()
    store = MongoStore(database["records"])
    store.ensure_indexes()
    database["records"].create_index(
        UNIQUE, unique=True, partialFilterExpression={UNIQUE: {"$exists": True}}
    )
    publisher = ConfirmingPublisher(vhost_uri)
    with Connection(vhost_uri) as connection:
        channel: Any = connection.default_channel
        channel.exchange_declare(EVENTS, "topic", durable=True, auto_delete=False)
        channel.queue_declare("all", durable=True, auto_delete=False)
        channel.queue_bind("all", EVENTS, "case.#")
        seen: list[str] = []

        def delivered() -> list[str]:
            while (message := channel.basic_get("all", no_ack=True)) is not None:
                body = message.body
                seen.append(id_of(body if isinstance(body, bytes) else body.encode()))
            return seen

        yield Seam(Fold(store, publisher, clock), store, clock, delivered)
    publisher.close()


@pytest.fixture(params=["in_memory", "on_servers"])
def seam(request: pytest.FixtureRequest) -> Seam:
    found: Seam = request.getfixturevalue(request.param)
    return found


def test_a_document_and_its_events_are_written_published_and_cleared(seam: Seam) -> None:
    seam.put("a", {"标题": "宅基地滴水纠纷", "层级": ["户", {"组": 3}]}, event("e1"), event("e2"))
    record = seam.record("a")
    assert record.document == {"标题": "宅基地滴水纠纷", "层级": ["户", {"组": 3}]}
    assert record.revision == 1
    assert record.unpublished == ()
    assert seam.delivered() == ["e1", "e2"]


def test_inputs_of_one_document_are_applied_in_their_order(seam: Seam) -> None:
    def append(letter: str) -> Work:
        def change(record: Record) -> Decision:
            text = (record.document or {"text": ""})["text"] + letter
            return Decision({"text": text}, answer=text)

        return Work("a", change)

    outcomes = seam.fold.run([append("x"), append("y"), append("z")])
    assert [outcome.answer for outcome in outcomes] == ["x", "xy", "xyz"]
    assert seam.record("a").document == {"text": "xyz"}
    assert seam.record("a").revision == 1


def test_two_writers_at_once_both_count(seam: Seam) -> None:
    seam.put("a", {"n": 1})
    rivals = [5, 7]

    def change(record: Record) -> Decision:
        assert record.document is not None
        if rivals:
            add = rivals.pop()
            other = record.document["n"] + add
            seam.put("a", {"n": other}, event(f"rival-{add}"))
        return Decision({"n": record.document["n"] + 1}, [event(f"mine-{record.document['n']}")])

    seam.fold.run([Work("a", change)])
    assert seam.record("a").document == {"n": 1 + 7 + 5 + 1}
    assert seam.delivered() == ["rival-7", "rival-5", "mine-13"]


def test_two_creators_at_once_give_one_document(seam: Seam) -> None:
    rivals = [True]

    def change(record: Record) -> Decision:
        if rivals:
            rivals.pop()
            seam.put("a", {"by": "rival"})
        if record.document is not None:
            return Decision(record.document, answer="was there")
        return Decision({"by": "me"})

    assert seam.fold.run([Work("a", change)])[0].answer == "was there"
    assert seam.record("a").document == {"by": "rival"}


def test_what_changes_nothing_writes_nothing(seam: Seam) -> None:
    seam.put("a", {"n": 1})
    seam.put("a", {"n": 1})
    seam.fold.run([Work("b", lambda _record: Decision(None))])
    assert seam.record("a").revision == 1
    assert seam.store.read(["b"]) == {}


def test_one_that_is_turned_away_takes_only_itself(seam: Seam) -> None:
    def reject(_record: Record) -> Decision:
        raise Reject("broken", "it can't be processed")

    def refuse(_record: Record) -> Decision:
        raise Refused("not now", held_by="village")

    good = Work("a", lambda record: Decision({"n": (record.document or {"n": 0})["n"] + 1}))
    outcomes = seam.fold.run([good, Work("a", reject), good, Work("b", refuse)])
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        Reject,
        type(None),
        Refused,
    ]
    assert seam.record("a").document == {"n": 2}
    assert seam.store.read(["b"]) == {}


def test_the_input_is_acknowledged_between_writing_and_publishing(seam: Seam) -> None:
    seen: list[Any] = []

    def written(outcomes: Sequence[Any]) -> None:
        seen.append((seam.record("a").document, seam.delivered(), [o.answer for o in outcomes]))

    work = Work("a", lambda _record: Decision({"n": 1}, [event("e1")], "yes"))
    seam.fold.run([work], written)
    assert seen == [({"n": 1}, [], ["yes"])]
    assert seam.delivered() == ["e1"]


def test_an_input_that_can_not_be_acknowledged_is_published_by_the_sweep(seam: Seam) -> None:
    def written(_outcomes: Sequence[Any]) -> None:
        raise BrokerAway("the connection broke")

    def change(record: Record) -> Decision:
        return Decision({"n": 1}, [] if record.document else [event("e1")])

    with pytest.raises(Retry):
        seam.fold.run([Work("a", change)], written)
    assert seam.unpublished("a") == ["e1"]
    seam.fold.run([Work("a", change)])
    assert seam.delivered() == []
    seam.clock.advance(10)
    assert seam.fold.sweep(older_than=5) == 1
    assert seam.delivered() == ["e1"]
    assert seam.unpublished("a") == []


def test_the_sweep_leaves_what_is_just_being_published(seam: Seam) -> None:
    away = Fold(seam.store, _Away(), seam.clock)
    away.run([Work("old", lambda _record: Decision({"n": 1}, [event("e1")]))])
    seam.clock.advance(10)
    away.run([Work("new", lambda _record: Decision({"n": 1}, [event("e2")]))])
    assert seam.fold.sweep(older_than=5) == 1
    assert seam.delivered() == ["e1"]
    assert seam.unpublished("new") == ["e2"]


def test_an_outage_of_the_broker_loses_nothing_and_the_answer_stands(seam: Seam) -> None:
    away = Fold(seam.store, _Away(), seam.clock)
    work = Work("a", lambda _record: Decision({"n": 1}, [event("e1")], "yes"))
    assert away.run([work])[0].answer == "yes"
    assert seam.unpublished("a") == ["e1"]


def test_an_event_that_the_broker_refuses_holds_up_no_other(seam: Seam) -> None:
    refusing = Fold(seam.store, _Refusing(seam.fold.publisher, "e2"), seam.clock)
    for name in ("e1", "e2", "e3"):
        change = Decision({"n": 1}, [event(name)])
        refusing.run([Work(f"key-{name}", lambda _record, change=change: change), _other(name)])
    seam.clock.advance(10)
    refusing.sweep(older_than=5)
    assert seam.unpublished("key-e1") == seam.unpublished("key-e3") == []
    assert seam.unpublished("key-e2") == ["e2"]
    assert set(seam.delivered()) == {"e1", "e3", "e1-other", "e2-other", "e3-other"}


def test_a_sweep_says_that_the_broker_is_away(seam: Seam) -> None:
    away = Fold(seam.store, _Away(), seam.clock)
    away.run([Work("a", lambda _record: Decision({"n": 1}, [event("e1")]))])
    seam.clock.advance(10)
    with pytest.raises(BrokerAway):
        away.sweep(older_than=5)
    assert seam.unpublished("a") == ["e1"]


def test_just_what_was_confirmed_is_cleared(seam: Seam) -> None:
    seam.put("a", {"n": 1}, event("e1"), event("lost", key="nobody.wants.this"), event("e2"))
    assert seam.unpublished("a") == ["lost"]
    assert seam.delivered() == ["e1", "e2"]


def test_clearing_leaves_what_was_written_meanwhile(seam: Seam) -> None:
    away = Fold(seam.store, _Away(), seam.clock)
    away.run([Work("a", lambda _record: Decision({"n": 1}, [event("e1")]))])
    away.run([Work("a", lambda _record: Decision({"n": 2}, [event("e2")]))])
    seam.store.clear({"a": [event("e1")]}, seam.clock.now())
    assert seam.unpublished("a") == ["e2"]
    assert seam.record("a").document == {"n": 2}


def test_only_events_of_custody_have_a_confirm_time(seam: Seam) -> None:
    seam.put("a", {"n": 1}, event("e1"))
    assert seam.record("a").confirmed is None
    away = Fold(seam.store, _Away(), seam.clock)
    custody = event("e2", "case.escalated")
    away.run([Work("a", lambda _record: Decision({"n": 2}, [custody]))])
    assert seam.record("a").custody_unpublished
    confirmed = seam.clock.advance(60)
    seam.fold.sweep(older_than=5)
    assert seam.record("a").confirmed == confirmed
    assert not seam.record("a").custody_unpublished


def test_a_value_that_must_be_unique_is_not_taken_twice(seam: Seam) -> None:
    seam.put("a", {"code": "X1"})
    with pytest.raises(Collision) as caught:
        seam.put("b", {"code": "X1"})
    assert caught.value.field == "code"
    assert seam.store.read(["b"]) == {}


def test_a_large_batch_goes_through_at_once(seam: Seam) -> None:
    works = [
        Work(f"k{n}", lambda _record, n=n: Decision({"n": n}, [event(f"e{n}")]))
        for n in range(1200)
    ]
    assert len(seam.fold.run(works)) == 1200
    assert len(seam.store.read([f"k{n}" for n in range(1200)])) == 1200
    assert seam.store.unpublished(float("inf"), 10) == []
    assert sorted(seam.delivered()) == sorted(f"e{n}" for n in range(1200))


def test_a_document_that_never_stops_changing_is_put_off(seam: Seam) -> None:
    count = iter(range(1000))

    def change(_record: Record) -> Decision:
        seam.put("a", {"rival": next(count)})
        return Decision({"mine": True})

    with pytest.raises(Retry):
        seam.fold.run([Work("a", change)])


def test_fields_that_only_a_newer_publisher_knows_are_kept(seam: Seam) -> None:
    newer = {"$strange": 1, "dotted.name": {"深": [None, True, 1.5]}, "grid": GRID}
    seam.put("a", {"data": newer})
    assert seam.record("a").document == {"data": newer}


class _Away(Publisher):
    """A broker that is away."""

    def publish(self, events: Sequence[Event]) -> set[str]:
        raise BrokerAway("the broker is away")


class _Refusing(Publisher):
    """A broker that refuses one event, and with it whatever is published together with it."""

    def __init__(self, publisher: Publisher, refused: str) -> None:
        self._publisher = publisher
        self._refused = refused

    def publish(self, events: Sequence[Event]) -> set[str]:
        if any(event.id == self._refused for event in events):
            raise BrokerRefused("access to the topic was refused")
        return self._publisher.publish(events)


def _other(name: str) -> Work:
    return Work(f"other-{name}", lambda _record: Decision({"n": 1}, [event(f"{name}-other")]))
