"""The confirming publisher and the topology on a real broker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kombu.connection import Connection

from deploy.local.processes import wait_until
from services.bus import topology
from services.bus.errors import BrokerAway
from services.bus.publisher import ConfirmingPublisher
from services.grid.clock import FrozenClock
from services.grid.events import Event
from tests.conftest import LEVELS

QUEUE = topology.instance("dispatch", "village").queues["events"]


def event(name: str, level: str = "village", kind: str = "case.escalated") -> Event:
    return Event(
        id=name,
        type=kind,
        subject="case-1",
        time=FrozenClock().now(),
        source="huashi/test",
        data={"标题": "路灯不亮"},
        key=f"{kind}.{level}.46.90.02",
    )


def depth(uri: str, queue: str) -> int:
    with Connection(uri) as connection:
        channel: Any = connection.default_channel
        return int(channel.queue_declare(queue, passive=True).message_count)


def test_declaring_again_changes_nothing(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    topology.declare(vhost_uri, LEVELS)
    assert depth(vhost_uri, QUEUE) == 0


def test_a_queue_with_other_arguments_is_named(vhost_uri: str) -> None:
    with Connection(vhost_uri) as connection:
        channel: Any = connection.default_channel
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
    with pytest.raises(topology.TopologyError, match=QUEUE):
        topology.declare(vhost_uri, LEVELS)


def test_an_event_reaches_the_desk_of_its_level_only(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri)
    assert publisher.publish([event("a"), event("b", "township")]) == {"a", "b"}
    publisher.close()
    with Connection(vhost_uri) as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get(QUEUE, no_ack=True)
        assert message.properties["message_id"] == "a"
        assert channel.basic_get(QUEUE, no_ack=True) is None


def test_more_than_a_window_is_confirmed(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri, window=10)
    names = {f"e{number}" for number in range(95)}
    assert publisher.publish([event(name) for name in sorted(names)]) == names
    publisher.close()


def test_several_threads_get_each_their_own(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri, window=7)
    groups = [[f"{group}-{number}" for number in range(20)] for group in range(8)]
    with ThreadPoolExecutor(len(groups)) as pool:
        found = pool.map(lambda names: publisher.publish([event(name) for name in names]), groups)
        assert [sorted(names) for names in found] == [sorted(names) for names in groups]
    publisher.close()


def test_what_merely_nobody_wants_is_kept_and_confirmed(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri)
    assert publisher.publish([event("unwanted", kind="nobody.wants")]) == {"unwanted"}
    publisher.close()
    wait_until("the unwanted event", lambda: depth(vhost_uri, topology.UNWANTED) == 1, 10)


def test_what_somebody_wants_is_kept_only_there(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri)
    publisher.publish([event("wanted")])
    publisher.close()
    wait_until("the event", lambda: depth(vhost_uri, QUEUE) == 1, 10)
    assert depth(vhost_uri, topology.UNWANTED) == 0


def test_what_no_queue_takes_is_not_confirmed(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    with Connection(vhost_uri) as connection:
        channel: Any = connection.default_channel
        channel.queue_unbind(topology.UNWANTED, topology.UNWANTED, "")
    publisher = ConfirmingPublisher(vhost_uri)
    lost = event("lost", kind="nobody.wants")
    assert publisher.publish([lost, event("kept"), lost]) == {"kept"}
    # What came back is forgotten: the same may be published again once somebody takes it.
    with Connection(vhost_uri) as connection:
        again: Any = connection.default_channel
        again.queue_bind(topology.UNWANTED, topology.UNWANTED, "")
    assert publisher.publish([lost]) == {"lost"}
    publisher.close()


def test_after_its_connection_was_cut_it_connects_again(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri)
    assert publisher.publish([event("before")]) == {"before"}
    publisher._connection.connection.transport.sock.shutdown(2)
    with pytest.raises(BrokerAway):
        publisher.publish([event("during")])
    assert publisher.publish([event("after")]) == {"after"}
    publisher.close()


def test_whoever_waits_hears_that_it_was_closed(vhost_uri: str) -> None:
    """A cut while several publish: each of them gets its confirms or hears that there are none."""
    topology.declare(vhost_uri, LEVELS)
    publisher = ConfirmingPublisher(vhost_uri, window=5)
    publisher.ready()
    groups = [[f"{group}-{number}" for number in range(200)] for group in range(6)]

    def publish(names: list[str]) -> set[str]:
        try:
            return publisher.publish([event(name) for name in names])
        except BrokerAway:
            return set()

    with ThreadPoolExecutor(len(groups)) as pool:
        found = [pool.submit(publish, names) for names in groups]
        wait_until("some have arrived", lambda: depth(vhost_uri, QUEUE) > 20, 10)
        publisher._connection.connection.transport.sock.shutdown(2)
        confirmed = [future.result(timeout=30) for future in found]
    for names, got in zip(groups, confirmed, strict=True):
        assert got <= set(names)
        # A sweep sends the rest again, over a new connection.
        left = [event(name) for name in names if name not in got]
        assert publisher.publish(left) == set(names) - got
    publisher.close()


def test_an_unreachable_broker_is_said_to_be_away() -> None:
    publisher = ConfirmingPublisher("amqp://a:b@127.0.0.1:1//", patience=1.0)
    with pytest.raises(BrokerAway, match="can't be reached"):
        publisher.publish([event("a")])


def test_a_closed_publisher_says_so(vhost_uri: str) -> None:
    publisher = ConfirmingPublisher(vhost_uri)
    publisher.close()
    with pytest.raises(BrokerAway, match="closed"):
        publisher.publish([event("a")])


def test_publishing_nothing_asks_for_nothing() -> None:
    assert ConfirmingPublisher("amqp://a:b@127.0.0.1:1//").publish([]) == set()
