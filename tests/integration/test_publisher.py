"""The confirming publisher and the topology on a real broker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kombu.connection import Connection

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


def test_what_no_queue_takes_is_not_confirmed(vhost_uri: str) -> None:
    topology.declare(vhost_uri, LEVELS)
    with Connection(vhost_uri) as connection:
        channel: Any = connection.default_channel
        channel.queue_unbind(topology.AUDIT_QUEUE, topology.EVENTS, "#")
    publisher = ConfirmingPublisher(vhost_uri)
    lost = event("lost", kind="nobody.wants")
    assert publisher.publish([lost, event("kept")]) == {"kept"}
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
