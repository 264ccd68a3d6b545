"""What waits in the queue of a system that subscribes, and what it has lost.

A queue that is full drops its oldest messages; the broker puts them, as dead letters, into a queue
that nobody reads. To empty that is to count them, and the first one says since when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import amqp
import eventlet

from services.bus import wire
from services.bus.errors import BrokerAway
from services.bus.publisher import CONNECTION_ERRORS
from services.bus.systems import events_queue, lost_queue

_PATIENCE_SECONDS = 10.0

T = TypeVar("T")


class NoQueue(Exception):
    """The broker has no queue for the system."""


class Queues:
    """Looks at systems' queues, on a connection of its own that publishes nothing.

    So a broker that takes no messages for want of memory still answers it.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None

    def waiting(self, system: str) -> int:
        """How many events wait for a system to take them.

        :raises NoQueue: there is no such queue.
        :raises BrokerAway: the broker does not answer.
        """

        def look(channel: Any) -> int:
            return int(channel.queue_declare(events_queue(system), passive=True).message_count)

        return self._ask(look)

    def lost(self, system: str, note: Callable[[bytes], None]) -> int:
        """How many events a system's queue has lost since this was asked last, at most 10,000.

        :param note: is told the body of the first, before anything is forgotten.
        :raises NoQueue: there is no such queue.
        :raises BrokerAway: the broker does not answer.
        """
        queue = lost_queue(system)

        def take(channel: Any) -> int:
            first = channel.basic_get(queue)
            if first is None:
                return 0
            body = first.body if isinstance(first.body, bytes) else first.body.encode()
            note(body)
            # One that is not acknowledged is not purged.
            count = 1 + int(channel.queue_purge(queue))
            channel.basic_ack(first.delivery_info["delivery_tag"])
            return count

        return self._ask(take)

    def close(self) -> None:
        """Ends the connection; it is made again when it is needed."""
        with self._lock:
            self._disconnect()

    def _ask(self, act: Callable[[Any], T]) -> T:
        with self._lock:
            try:
                with eventlet.Timeout(_PATIENCE_SECONDS, BrokerAway("RabbitMQ does not answer")):
                    if self._connection is None or not self._connection.connected:
                        self._disconnect()
                        self._connection = wire.connection(
                            self._uri, connect_timeout=_PATIENCE_SECONDS
                        )
                        self._connection.connect()
                    channel = self._connection.connection.channel()
                    found = act(channel)
                    channel.close()
                    return found
            except amqp.exceptions.NotFound as error:
                raise NoQueue(str(error)) from error
            except CONNECTION_ERRORS as error:
                self._disconnect()
                raise BrokerAway(f"RabbitMQ: {error}") from error
            except BrokerAway:
                self._disconnect()
                raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.release()
            except CONNECTION_ERRORS:
                return
