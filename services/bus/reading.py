"""Reading from the broker over a connection of one's own, for as long as the process lives."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from math import inf
from threading import Event as Flag
from typing import Any

from services.bus import logs, metrics, wire
from services.bus.publisher import CONNECTION_ERRORS
from services.grid.clock import monotonic

log = logs.get(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
_HEARTBEAT_SECONDS = 60
TICK_SECONDS = 0.5


class Reading(ABC):
    """Reads until it is stopped; connects again whenever the broker is away.

    It knows nothing of nameko and runs in any thread: :meth:`run` returns some time after
    :meth:`stop`.

    :param peer: what it reads, in metrics and logs.
    """

    def __init__(self, uri: str, peer: str) -> None:
        self._uri = uri
        self._peer = peer
        self._stopping = Flag()
        self._stopped = Flag()
        self._connection: Any = None

    @abstractmethod
    def _begin(self) -> None:
        """Subscribes, on a connection that is new; what came over another one comes again."""

    @abstractmethod
    def _turn(self) -> None:
        """Takes what has come, or waits for it a moment."""

    def stop(self) -> None:
        """Tells it to finish what is in hand and to leave the rest to redelivery."""
        self._stopping.set()

    def join(self) -> None:
        """Returns when it has stopped."""
        self._stopped.wait()

    def run(self) -> None:
        """Reads until it is stopped."""
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._stopping.is_set():
                try:
                    self._connect()
                    pause = FIRST_PAUSE_SECONDS
                    while not self._stopping.is_set():
                        self._turn()
                except CONNECTION_ERRORS as error:
                    metrics.RETRIES.labels("broker").inc()
                    log.warning("reading is interrupted", queue=self._peer, why=str(error))
                finally:
                    self._disconnect()
                if self._stopping.wait(jittered(pause)):
                    return
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            self._stopped.set()

    def _connect(self) -> None:
        self._connection = wire.connection(
            self._uri, heartbeat=_HEARTBEAT_SECONDS, connect_timeout=10
        )
        self._connection.connect()
        self._begin()
        metrics.CONNECTED.labels(self._peer).set(1)

    def _disconnect(self) -> None:
        metrics.CONNECTED.labels(self._peer).set(0)
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.release()
            except CONNECTION_ERRORS as error:
                log.debug("a broken connection could not be closed", why=str(error))

    def _drain(self, seconds: float = inf) -> None:
        """Reads what has come, or waits for it: a moment, or ``seconds`` if that is less.

        It keeps the heartbeat.
        """
        self._connection.heartbeat_check()
        try:
            self._connection.drain_events(timeout=max(min(seconds, TICK_SECONDS), 0.001))
        except TimeoutError:
            return

    def _pause(self, seconds: float) -> bool:
        """Waits with the heartbeat kept; False if it is to stop."""
        until = monotonic() + seconds
        while not self._stopping.is_set():
            left = until - monotonic()
            if left <= 0:
                return True
            self._drain(left)
        return False


def jittered(seconds: float) -> float:
    """Some less: replicas that lost the same server must not come back at the same moment."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311
