"""The batch reader on a real broker: nothing lost, nothing acknowledged before its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import amqp
import eventlet
import pytest
from kombu.connection import Connection

from deploy.local.processes import wait_until
from services.bus import topology
from services.bus.consumer import Batch, BatchReader, _Workers
from services.bus.errors import Collision, Defer, Refused, Reject, Retry
from services.bus.fold import Outcome
from services.bus.publisher import CONNECTION_ERRORS, ConfirmingPublisher
from services.grid.events import Event
from tests.conftest import LEVELS
from tests.integration.test_publisher import depth

DESK = topology.instance("dispatch", "household")
QUEUE = DESK.queues["events"]
EXAMPLE = Path(__file__).parents[1] / "contract/examples/huashi.case.reported.v1.json"
FINE = Outcome()
PATIENCE = 60.0


def reported(name: str) -> Event:
    key = "case.reported.household.46.90.02.104.214.03.007"
    return replace(Event.read(EXAMPLE.read_bytes()), id=name, key=key)


def fine(batch: Batch) -> None:
    batch.acknowledge([FINE for _ in batch.events])


@dataclass
class Desk:
    """A queue, a reader of it in a thread of its own, and what its handler has seen."""

    uri: str
    publisher: ConfirmingPublisher
    handle: Callable[[Batch], None] = fine
    batches: list[list[str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    readers: list[BatchReader] = field(default_factory=list)

    def read(
        self, queue: str = QUEUE, size: int = 10, linger: float = 0.1, patience: float = 3600.0
    ) -> BatchReader:
        reader = BatchReader(
            self.uri,
            queue,
            self._on_batch,
            self.publisher,
            service=DESK.name,
            size=size,
            linger=linger,
            patience=patience,
        )
        self.readers.append(reader)
        threading.Thread(target=reader.run, daemon=True).start()
        return reader

    def send(self, *names: str) -> None:
        assert self.publisher.publish([reported(name) for name in names]) == set(names)

    def send_raw(self, body: bytes) -> None:
        with Connection(self.uri) as connection:
            channel: Any = connection.default_channel
            channel.basic_publish(amqp.Message(body, delivery_mode=2), "", QUEUE)

    @property
    def seen(self) -> list[str]:
        return [name for batch in self.batches for name in batch]

    def until_seen(self, count: int) -> list[str]:
        wait_until(f"{count} events", lambda: len(self.seen) >= count, PATIENCE)
        return self.seen

    def until_empty(self, queue: str = QUEUE) -> None:
        """Until nothing waits and, as nothing comes back to a new consumer, nothing is in hand."""
        for reader in self.readers:
            reader.stop()
            reader.join()
        wait_until(f"{queue} is empty", lambda: depth(self.uri, queue) == 0, PATIENCE)

    def parked(self) -> amqp.Message:
        found: list[amqp.Message] = []
        with Connection(self.uri) as connection:
            channel: Any = connection.default_channel

            def taken() -> bool:
                message = channel.basic_get(topology.PARKED_QUEUE, no_ack=True)
                if message is not None:
                    found.append(message)
                return bool(found)

            wait_until("a dead letter", taken, PATIENCE)
        return found[0]

    def _on_batch(self, batch: Batch) -> None:
        self.batches.append([event.id for event in batch.events])
        self.keys |= {event.key for event in batch.events}
        self.handle(batch)


@pytest.fixture
def desk(vhost_uri: str) -> Iterator[Desk]:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri)
    made = Desk(vhost_uri, publisher)
    yield made
    for reader in made.readers:
        reader.stop()
    for reader in made.readers:
        reader.join()
    publisher.close()


def test_batches_are_full_and_in_the_order_of_the_queue(desk: Desk) -> None:
    names = [f"e{number:02}" for number in range(25)]
    desk.send(*names)
    desk.read(size=10)
    assert desk.until_seen(25) == names
    assert [len(batch) for batch in desk.batches] == [10, 10, 5]
    desk.until_empty()


def test_a_single_event_does_not_wait_for_company(desk: Desk) -> None:
    desk.read(size=1000, linger=0.05)
    desk.send("alone")
    assert desk.until_seen(1) == ["alone"]
    desk.until_empty()


def test_a_reader_knows_that_it_is_behind_and_when_it_has_caught_up(desk: Desk) -> None:
    go_on = threading.Event()

    def waits(batch: Batch) -> None:
        assert go_on.wait(PATIENCE)
        fine(batch)

    desk.handle = waits
    desk.send(*[f"e{number:02}" for number in range(20)])
    reader = desk.read(size=10)
    wait_until("it is behind", lambda: bool(desk.batches) and reader.behind(), PATIENCE)
    go_on.set()
    wait_until("it has caught up", lambda: not reader.behind(), PATIENCE)
    assert len(desk.seen) == 20


def test_the_next_batch_is_read_while_one_is_in_hand(desk: Desk) -> None:
    read_on: list[bool] = []

    def waits(batch: Batch) -> None:
        while len(desk.batches) == 1 and batch.read_on():
            read_on.append(True)
        fine(batch)

    desk.handle = waits
    desk.send(*[f"e{number:02}" for number in range(20)])
    desk.read(size=10)
    desk.until_seen(20)
    assert [len(batch) for batch in desk.batches] == [10, 10]
    assert desk.seen == sorted(desk.seen)
    desk.until_empty()


def test_retry_brings_the_same_batch_again_and_nothing_else(desk: Desk) -> None:
    tries: list[int] = []

    def away(batch: Batch) -> None:
        tries.append(len(batch.events))
        if len(tries) < 3:
            raise Retry("the database is away")
        fine(batch)

    desk.handle = away
    desk.send("a", "b")
    reader = desk.read()
    wait_until("three tries", lambda: len(tries) >= 3, PATIENCE)
    wait_until("it is well again", reader.ready, PATIENCE)
    assert desk.batches == [["a", "b"]] * 3
    desk.until_empty()


def test_a_rejected_event_alone_is_parked_with_its_reason(desk: Desk) -> None:
    def picky(batch: Batch) -> None:
        rejected = Outcome(error=Reject("no_such_level", "level 片区: 没有这一级"))
        batch.acknowledge([rejected if event.id == "bad" else FINE for event in batch.events])

    desk.handle = picky
    desk.send("a", "bad", "b")
    desk.read()
    letter = desk.parked()
    headers = letter.headers
    assert Event.read(letter.body).id == "bad"
    assert headers["x-reason"] == "no_such_level"
    assert headers["x-service"] == "dispatch-household"
    assert headers["x-error"] == "level 片区: 没有这一级"
    assert headers["x-original-queue"] == QUEUE
    assert headers["x-original-key"].startswith("case.reported.household.")
    assert headers["x-event-id"] == "bad"
    desk.until_empty()
    assert desk.seen == ["a", "bad", "b"]


def test_a_refusal_is_an_answer_and_parks_nothing(desk: Desk) -> None:
    desk.handle = lambda batch: batch.acknowledge([Outcome(error=Refused("held elsewhere"))])
    desk.send("a")
    desk.read()
    desk.until_seen(1)
    desk.until_empty()
    assert depth(desk.uri, topology.PARKED_QUEUE) == 0


def test_rubbish_is_parked_and_never_reaches_the_handler(desk: Desk) -> None:
    desk.send_raw(b'{"specversion": "1.0", "id": ')
    desk.send("good")
    desk.read()
    letter = desk.parked()
    assert letter.headers["x-reason"] == "invalid_event"
    assert "not JSON" in letter.headers["x-error"]
    assert letter.body == b'{"specversion": "1.0", "id": '
    assert desk.until_seen(1) == ["good"]
    desk.until_empty()


def test_a_defect_takes_only_the_event_that_causes_it(desk: Desk) -> None:
    def stumbles(batch: Batch) -> None:
        if any(event.id == "e5" for event in batch.events):
            raise KeyError("no such rule")
        fine(batch)

    desk.handle = stumbles
    desk.send(*[f"e{number}" for number in range(10)])
    desk.read()
    letter = desk.parked()
    assert letter.headers["x-event-id"] == "e5"
    assert letter.headers["x-reason"] == "error"
    assert letter.headers["x-error"] == "KeyError: 'no such rule'"
    desk.until_empty()
    done = [batch for batch in desk.batches if "e5" not in batch]
    assert sorted(name for batch in done for name in batch) == [
        f"e{number}" for number in range(10) if number != 5
    ]
    assert depth(desk.uri, topology.PARKED_QUEUE) == 0


def test_a_handler_that_forgets_to_acknowledge_is_a_defect(desk: Desk) -> None:
    desk.handle = lambda _batch: None
    desk.send("a")
    desk.read()
    assert "without acknowledging" in desk.parked().headers["x-error"]


def test_what_is_redelivered_comes_alone(desk: Desk) -> None:
    in_hand, go_on = threading.Event(), threading.Event()

    def dies(_batch: Batch) -> None:
        in_hand.set()
        assert go_on.wait(PATIENCE)
        raise ConnectionResetError("as if it was killed here")

    desk.handle = dies
    desk.send("a", "b", "c")
    first = desk.read()
    assert in_hand.wait(PATIENCE)
    first.stop()
    go_on.set()
    first.join()
    assert desk.batches == [["a", "b", "c"]]
    desk.handle = fine
    desk.send("new")
    desk.read()
    assert sorted(desk.until_seen(7)[3:]) == ["a", "b", "c", "new"]
    assert all(len(batch) == 1 for batch in desk.batches[1:4])
    desk.until_empty()


def test_a_stop_finishes_the_batch_in_hand_and_leaves_the_rest(desk: Desk) -> None:
    in_hand, go_on = threading.Event(), threading.Event()

    def slow(batch: Batch) -> None:
        in_hand.set()
        assert go_on.wait(PATIENCE)
        fine(batch)

    desk.handle = slow
    desk.send(*[f"e{number}" for number in range(6)])
    reader = desk.read(size=2)
    assert in_hand.wait(PATIENCE)
    reader.stop()
    go_on.set()
    reader.join()
    assert desk.seen == ["e0", "e1"]
    wait_until("the rest is back", lambda: depth(desk.uri, QUEUE) == 4, PATIENCE)


def test_a_stop_during_a_pause_acknowledges_nothing(desk: Desk) -> None:
    def away(_batch: Batch) -> None:
        raise Retry("the database is away")

    desk.handle = away
    desk.send("a", "b")
    reader = desk.read()
    desk.until_seen(4)
    reader.stop()
    reader.join()
    wait_until("both are back", lambda: depth(desk.uri, QUEUE) == 2, PATIENCE)


def test_a_stop_while_a_batch_is_taken_apart_loses_nothing(desk: Desk) -> None:
    """The first half waits for a database, and the stop must not let the second overtake it."""

    def away(batch: Batch) -> None:
        names = [event.id for event in batch.events]
        if len(names) == 4:
            raise KeyError("a defect somewhere among these")
        if "e0" in names:
            raise Retry("the database is away")
        fine(batch)

    desk.handle = away
    desk.send("e0", "e1", "e2", "e3")
    reader = desk.read()
    desk.until_seen(8)
    reader.stop()
    reader.join()
    wait_until("all are back", lambda: depth(desk.uri, QUEUE) == 4, PATIENCE)
    assert depth(desk.uri, topology.PARKED_QUEUE) == 0


def test_a_letter_that_died_of_the_limit_is_tried_once_more_alone(desk: Desk) -> None:
    dead = reported("tired")
    with Connection(desk.uri) as connection:
        channel: Any = connection.default_channel
        channel.basic_publish(amqp.Message(dead.body(), delivery_mode=2), "", QUEUE)
        for _ in range(topology.DELIVERY_LIMIT + 1):
            found: list[Any] = []

            def back(taken: list[Any] = found) -> bool:
                message = channel.basic_get(QUEUE)
                taken.append(message)
                return message is not None or depth(desk.uri, topology.again(QUEUE)) > 0

            wait_until("it comes back", back, PATIENCE)
            if found[-1] is None:
                break
            channel.basic_reject(found[-1].delivery_tag, requeue=True)
    desk.read(queue=topology.again(QUEUE), size=1)
    assert desk.until_seen(1) == ["tired"]
    # As it was published, and not as it was put off.
    assert desk.keys == {QUEUE}
    desk.until_empty(topology.again(QUEUE))


def test_the_reader_comes_back_after_its_connection_was_cut(desk: Desk) -> None:
    reader = desk.read()
    desk.send("before")
    desk.until_seen(1)
    sockets: Sequence[Any] = [reader._connection.connection.transport.sock]
    sockets[0].shutdown(2)
    desk.send("after")
    # What was not acknowledged in that instant comes once more.
    wait_until("the second was seen", lambda: "after" in desk.seen, PATIENCE)
    assert set(desk.seen) == {"before", "after"}
    desk.until_empty()


def test_what_outlives_its_connection_acknowledges_nothing_of_the_next(desk: Desk) -> None:
    """Delivery tags begin anew on a new connection: an old one must not count there."""
    first: list[Batch] = []

    def step(batch: Batch) -> None:
        if not first:
            first.append(batch)
            raise ConnectionResetError("the connection broke while the step was at work")
        if len(desk.batches) == 2:
            with pytest.raises(CONNECTION_ERRORS):
                fine(first[0])
            raise ConnectionResetError("once more, before anything was acknowledged")
        fine(batch)

    desk.handle = step
    names = [f"e{number:02}" for number in range(12)]
    desk.send(*names)
    desk.read(size=10)
    wait_until("all were handled", lambda: set(desk.seen[11:]) == set(names), PATIENCE)
    desk.until_empty()


def test_a_worker_is_waited_for_when_reading_on_fails() -> None:
    finished: list[str] = []

    class Container:
        def spawn_worker(
            self, _entrypoint: Any, arguments: Any, _keywords: Any, handle_result: Any
        ) -> None:
            def work() -> None:
                eventlet.sleep(0.05)
                arguments[0].acknowledge([])
                finished.append("the step")
                handle_result(None, None, None)

            eventlet.spawn_n(work)

    class Entrypoint:
        container = Container()

    def broken() -> bool:
        raise ConnectionResetError("the socket was cut")

    workers = _Workers(cast(Any, Entrypoint()))
    with pytest.raises(ConnectionResetError):
        workers.handle(Batch([], lambda _outcomes: None, broken))
    assert finished == ["the step"]


def test_an_event_that_comes_too_early_waits_and_the_others_go_on(desk: Desk) -> None:
    known: set[str] = set()

    def needs(batch: Batch) -> None:
        early = Outcome(error=Defer("profile neu@1: it has not arrived yet"))
        batch.acknowledge(
            [
                early if event.id == "early" and "profile" not in known else FINE
                for event in batch.events
            ]
        )

    desk.handle = needs
    desk.send("a", "early", "b")
    desk.read()
    assert desk.until_seen(3) == ["a", "early", "b"]
    wait_until("it waits", lambda: depth(desk.uri, topology.again(QUEUE)) == 1, PATIENCE)
    known.add("profile")
    desk.read(queue=topology.again(QUEUE), size=1)
    assert desk.until_seen(4)[3] == "early"
    assert desk.keys == {reported("early").key}
    desk.until_empty(topology.again(QUEUE))
    assert depth(desk.uri, topology.PARKED_QUEUE) == 0


def test_an_event_that_waited_too_long_is_parked(desk: Desk) -> None:
    def never(batch: Batch) -> None:
        batch.acknowledge([Outcome(error=Defer("profile 无@1: it has not arrived yet"))])

    desk.handle = never
    desk.send("early")
    desk.read()
    desk.read(queue=topology.again(QUEUE), size=1, patience=0.5)
    letter = desk.parked()
    assert letter.headers["x-reason"] == "waited_too_long"
    assert "profile 无@1" in letter.headers["x-error"]
    assert letter.headers["x-original-key"].startswith("case.reported.household.")


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (Reject("unstorable", "a document of 17 MB"), "unstorable", "a document of 17 MB"),
        (Collision("tracking"), "collision", "another document has the same tracking"),
        (OverflowError("date value out of range"), "error", "OverflowError: date value"),
    ],
)
def test_what_a_step_raises_for_one_event_is_its_reason(
    desk: Desk, error: Exception, reason: str, said: str
) -> None:
    def stumbles(batch: Batch) -> None:
        if any(event.id == "bad" for event in batch.events):
            raise error
        fine(batch)

    desk.handle = stumbles
    desk.send("a", "bad", "b")
    desk.read()
    letter = desk.parked()
    assert (letter.headers["x-event-id"], letter.headers["x-reason"]) == ("bad", reason)
    assert said in letter.headers["x-error"]
    desk.until_empty()
