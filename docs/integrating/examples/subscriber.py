"""Keeps the latest of each case that Huashi tells of, in a file of SQLite.

    pip install kombu
    AMQP_URI=amqp://system.hotline:PASSWORD@HOST:5672 QUEUE=system.hotline.events \
        STORE=cases.db python subscriber.py

It may be ended at any time, also by kill -9, and started again.
"""

import json
import logging
import os
import signal
import sqlite3
from typing import Any

from kombu import Connection, Queue
from kombu.mixins import ConsumerMixin

STAGES = ("held", "withdrawn", "resolved", "closed")


def order(event: dict[str, Any]) -> tuple[int, ...]:
    """What makes one event of a case later than another, in whatever order they come.

    A stage that this program does not know yet counts as the last.
    """
    token = event["data"]["state"]["token"]
    stage = STAGES.index(token["stage"]) if token["stage"] in STAGES else len(STAGES)
    return token["round"], stage, token["hop"], token["seq"]


class Cases:
    """The greatest event of each case."""

    def __init__(self, path: str) -> None:
        self._file = sqlite3.connect(path)
        self._file.execute("CREATE TABLE IF NOT EXISTS cases (id TEXT PRIMARY KEY, event TEXT)")

    def take(self, event: dict[str, Any]) -> bool:
        """Keeps an event if it is later than what is known; True if it was."""
        place = order(event)
        row = self._file.execute(
            "SELECT event FROM cases WHERE id = ?", [event["subject"]]
        ).fetchone()
        if row is not None and place <= order(json.loads(row[0])):
            return False
        # It is on disk when this returns.
        with self._file:
            self._file.execute(
                "INSERT OR REPLACE INTO cases VALUES (?, ?)",
                [event["subject"], json.dumps(event, ensure_ascii=False)],
            )
        return True


class Subscriber(ConsumerMixin):
    """Reads the queue; connects again whenever the connection broke, after longer and longer."""

    def __init__(self, connection: Connection, queue: str, cases: Cases) -> None:
        self.connection = connection
        self._queue = Queue(queue, no_declare=True)
        self._cases = cases

    def get_consumers(self, consumer: Any, _channel: Any) -> list[Any]:
        """No more than a hundred are on their way to us at a time."""
        return [consumer([self._queue], on_message=self._on_message, prefetch_count=100)]

    def _on_message(self, message: Any) -> None:
        try:
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            event = json.loads(body)
            new = self._cases.take(event)
        except (ValueError, KeyError, TypeError) as error:
            # Again it would be as wrong. Huashi counts it as lost, and can send it again.
            logging.error("not understood: %r", error)
            message.reject()
            return
        # Only now: what is not acknowledged comes again.
        message.ack()
        if new:
            state = event["data"]["state"]
            address = state["address"]
            logging.info(
                "%s %s %s %s",
                event["subject"],
                state["token"]["stage"],
                address["level"],
                address["division"],
            )


def main() -> None:
    """Reads until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with Connection(os.environ["AMQP_URI"], heartbeat=30) as connection:
        subscriber = Subscriber(connection, os.environ["QUEUE"], Cases(os.environ["STORE"]))

        def stop(*_: Any) -> None:
            subscriber.should_stop = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        subscriber.run()


if __name__ == "__main__":
    main()
