"""One way to work off events, in a process of its own; prints the events a second."""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import os  # noqa: E402
import secrets  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import amqp  # noqa: E402
from eventlet.event import Event as Done  # noqa: E402
from kombu.connection import Connection  # noqa: E402
from nameko.containers import ServiceContainer  # noqa: E402
from nameko.events import EventDispatcher, event_handler  # noqa: E402
from nameko.standalone.events import event_dispatcher  # noqa: E402
from pymongo.collection import Collection  # noqa: E402

from bench.county import ATLAS, fill_directory, report  # noqa: E402
from deploy.local.processes import free_ports  # noqa: E402
from services.bus import topology, web  # noqa: E402
from services.bus.config import Config  # noqa: E402
from services.bus.publisher import ConfirmingPublisher  # noqa: E402
from services.bus.run import spare_the_collector  # noqa: E402
from services.bus.store import MongoStore, connect  # noqa: E402
from services.dispatch import model  # noqa: E402
from services.dispatch.service import Service  # noqa: E402
from services.dispatch.store import Docket  # noqa: E402
from services.grid.clock import ScaledClock, monotonic  # noqa: E402
from services.grid.events import Event  # noqa: E402
from services.grid.events.catalogue import CATALOGUE  # noqa: E402
from services.grid.events.envelope import CONTENT_TYPE  # noqa: E402

AMQP, MONGODB = os.environ["AMQP_URI"], os.environ["MONGODB_URI"]
QUEUE = topology.instance("dispatch", "household").queues["events"]
CONFIG = {"AMQP_URI": AMQP, "max_workers": 10, "prefetch_count": 10}


def _clean(name: str) -> Collection[dict[str, Any]]:
    collection = connect(MONGODB, "bench")[name]
    collection.drop()
    with Connection(AMQP) as connection:
        channel: Any = connection.default_channel
        for instance in topology.instances(["household"]):
            for queue in instance.queues.values():
                channel.queue_purge(queue)
    return collection


def _plain_queues(kind: str) -> None:
    """As many queues take the plain events as take our events of this kind."""
    with Connection(AMQP) as connection:
        channel: Any = connection.default_channel
        channel.exchange_declare("bench.events", "topic", durable=True, auto_delete=False)
        arguments = {"x-queue-type": "quorum"}
        takers = [
            f"bench.{queue}"
            for instance in topology.instances(["household"])
            for queue, key in topology.bindings(instance)
            if key.startswith(f"{kind}.")
        ]
        assert takers
        for queue in takers:
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
            channel.queue_bind(queue, "bench.events", kind)
            channel.queue_purge(queue)


def step(count: int) -> float:
    """Desk entries opened and assigned, from the queue to the confirm, by the real service."""
    database = connect(MONGODB, "bench")
    docket = Docket(_clean("docket_household"))
    fill_directory(MongoStore(database["directory_household"]))
    clock = ScaledClock(1, 0.0, 0.0)
    _queue_up([report(clock.now()) for _ in range(count)])
    spare_the_collector()
    container = ServiceContainer(Service, web.nameko_config(_config()))
    container.start()
    # Its start is not what is measured.
    while (before := docket.collection.estimated_document_count()) == 0:
        eventlet.sleep(0.01)
    started = monotonic()
    while docket.collection.estimated_document_count() < count or docket.unpublished(2**40, 1):
        eventlet.sleep(0.05)
    seconds = monotonic() - started
    container.stop()
    assert docket.collection.count_documents({"document.state.assigned": {"$ne": None}}) == count
    return (count - before) / seconds


def _queue_up(events: list[Event]) -> None:
    """Puts events on the desk's queue only: the other queues' work is not what is measured."""
    with Connection(AMQP) as connection:
        channel: Any = connection.default_channel
        for event in events:
            message = amqp.Message(event.body(), content_type=CONTENT_TYPE, delivery_mode=2)
            channel.basic_publish(message, "", QUEUE)
        while channel.queue_declare(QUEUE, passive=True).message_count < len(events):
            eventlet.sleep(0.1)


def _config() -> Config:
    return Config.from_environment(
        "dispatch",
        {
            "AMQP_URI": AMQP,
            "MONGODB_URI": MONGODB,
            "LEVEL": "household",
            "HTTP_BIND": f"127.0.0.1:{free_ports(1)[0]}",
            "TOKEN_KEY": secrets.token_hex(32),
        },
    )


def plain_step(count: int) -> float:
    """The same entries by nameko's own means, one message at a time."""
    collection = _clean("plain")
    clock, done, left = ScaledClock(1, 0.0, 0.0), Done(), [count]

    class Service:
        name = "bench_desk"
        dispatch = EventDispatcher()

        @event_handler("bench", "reported", reliable_delivery=True)
        def on_reported(self, payload: dict[str, Any]) -> None:
            event = Event.of_document(payload)
            CATALOGUE[event.full_type].load(event.data)
            document = model.merge(None, event)
            decision = model.decide(document, ATLAS, clock.now())
            collection.update_one(
                {"_id": model.key(event), "revision": 0},
                {"$set": {"document": decision.document, "revision": 1}},
                upsert=True,
            )
            for out in decision.events:
                self.dispatch("case.assigned", out.as_document())
            left[0] -= 1
            if left[0] == 0:
                done.send()

    _plain_queues("case.assigned")
    container = ServiceContainer(Service, CONFIG)
    with Connection(AMQP) as connection:
        channel: Any = connection.default_channel
        channel.queue_delete("evt-bench-reported--bench_desk.on_reported")
    # Started once to make the queue, so that it is full before the measure.
    container.start()
    container.stop()
    send = event_dispatcher(CONFIG)
    for _ in range(count):
        send("bench", "reported", report(clock.now()).as_document())
    container = ServiceContainer(Service, CONFIG)
    started = monotonic()
    container.start()
    done.wait()
    seconds = monotonic() - started
    container.stop()
    assert collection.count_documents({}) == count
    return count / seconds


def publisher(count: int) -> float:
    """Events through our publisher, each confirmed."""
    _clean("unused")
    clock, sender = ScaledClock(1, 0.0, 0.0), ConfirmingPublisher(AMQP)
    events = [report(clock.now()) for _ in range(count)]
    sender.ready()
    started = monotonic()
    confirmed = sum(len(sender.publish(events[at : at + 200])) for at in range(0, count, 200))
    seconds = monotonic() - started
    assert confirmed == count
    sender.close()
    return count / seconds


def plain_publisher(count: int) -> float:
    """The same events through nameko's dispatcher, a confirm each."""
    clock = ScaledClock(1, 0.0, 0.0)
    bodies = [report(clock.now()).as_document() for _ in range(count)]
    _plain_queues("case.reported")
    send = event_dispatcher(CONFIG)
    send("bench", "case.reported", {})
    started = monotonic()
    for body in bodies:
        send("bench", "case.reported", body)
    return count / (monotonic() - started)


if __name__ == "__main__":
    ways = {way.__name__: way for way in (step, plain_step, publisher, plain_publisher)}
    print(ways[sys.argv[1]](int(sys.argv[2])))
    sys.stdout.flush()
    os._exit(0)
