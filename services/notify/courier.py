"""Sends beside each other what may be: so much to one sink, so much in all.

A sink that takes ten seconds for each answer fills its own places, and holds up nobody else.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from services.bus import logs
from services.grid.clock import monotonic

AT_ONCE = 64
"""So much is sent by this process at the same time."""
PER_SINK = 4
"""So much of it to one sink."""

_TICK_SECONDS = 0.02

log = logs.get(__name__)


class Courier:
    """Runs jobs in threads (green ones in a service).

    :param over: called when a job has ended: there is room again, and perhaps a result.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()

    def room(self, sink: str) -> int:
        """How many jobs for this sink may begin now."""
        with self._lock:
            return max(0, min(PER_SINK - self._busy[sink], AT_ONCE - self._busy.total()))

    def send(self, sink: str, job: Callable[[], None]) -> None:
        """Begins a job; what it is to leave behind it leaves itself."""
        with self._lock:
            self._busy[sink] += 1
        threading.Thread(target=self._run, args=(sink, job), daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Returns when all have ended, after ``seconds`` at the latest."""
        until = monotonic() + seconds
        while monotonic() < until:
            with self._lock:
                if not self._busy.total():
                    return
            time.sleep(_TICK_SECONDS)

    def _run(self, sink: str, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            log.exception("a delivery failed and will be tried again")
        finally:
            with self._lock:
                self._busy[sink] -= 1
                if not self._busy[sink]:
                    del self._busy[sink]
            self._over()
