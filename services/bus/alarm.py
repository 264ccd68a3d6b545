"""A method that is called again when it says so, or as soon as something changed.

    @alarm
    def fire(self) -> float:
        ...
        return seconds_until_next_time

Sleeping until the next due time, and being woken by an earlier one, is exact and costs
nothing while nothing is due; polling would be neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from eventlet.event import Event
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension
from nameko.timer import Timer

from services.bus import logs
from services.bus.errors import Retry

log = logs.get(__name__)

_LONGEST_SECONDS = 1.0


class Bell(SharedExtension):
    """One a service: whoever changes when something is due rings it."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[threading.Event] = []

    def ring(self) -> None:
        """Wakes the alarms of this process."""
        for rung in self._listeners:
            rung.set()

    def listen(self) -> threading.Event:
        """Is set at each ring; a listener of one's own, so that nobody else clears it."""
        rung = threading.Event()
        self._listeners.append(rung)
        return rung


class Alarm(Entrypoint):
    """The nameko entrypoint behind :func:`alarm` and :func:`lanes`; one call a lane at a time.

    The method returns real seconds; after an error, and as a backstop against a ring that
    was missed, it is called again within a second.
    """

    bell = Bell()

    def __init__(self, count: int | None = None) -> None:
        super().__init__(expected_exceptions=(Exception,))
        self._calls: list[tuple[int, ...]] = [(lane,) for lane in range(count)] if count else [()]
        self._stopping = False

    def start(self) -> None:
        """See nameko's ``Extension``."""
        for arguments in self._calls:
            run = partial(self._run, self.bell.listen(), arguments)
            name = f"alarm {self.method_name}{arguments or ''}"
            self.container.spawn_managed_thread(run, identifier=name)

    def stop(self) -> None:
        """See nameko's ``Extension``; the call in hand is finished by the container."""
        self._stopping = True
        self.bell.ring()

    def _run(self, rung: threading.Event, arguments: tuple[int, ...]) -> None:
        while not self._stopping:
            pause = self._call(arguments)
            if not self._stopping and pause > 0:
                rung.wait(min(pause, _LONGEST_SECONDS))
                rung.clear()

    def _call(self, arguments: tuple[int, ...]) -> float:
        done = Event()
        finish = partial(hand_over, done)
        try:
            self.container.spawn_worker(self, arguments, {}, handle_result=finish)
            pause: float = done.wait()
        except ContainerBeingKilled:
            return _LONGEST_SECONDS
        except Retry as error:
            log.warning("put off", method=self.method_name, why=str(error))
            return _LONGEST_SECONDS
        except Exception:
            log.exception("an alarm failed and will be tried again", method=self.method_name)
            return _LONGEST_SECONDS
        return pause


def hand_over(done: Event, _context: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
    """Gives a worker's result or exception to whoever waits for it."""
    if exc_info is None:
        done.send(result)
    else:
        done.send_exception(*exc_info)
    return result, exc_info


Method = TypeVar("Method", bound=Callable[..., Any])


def alarm(method: Method) -> Method:
    """Calls ``method`` as soon as the service has started, then whenever it says."""
    decorated: Method = Alarm.decorator(method)
    return decorated


def lanes(count: int) -> Callable[[Method], Method]:
    """As :func:`alarm`, for work that can be divided: ``method`` gets the number of its lane.

    While one lane waits for the database, another decides.
    """
    decorate: Callable[[Method], Method] = Alarm.decorator(count)
    return decorate


def every(seconds: float) -> Callable[[Method], Method]:
    """Calls a method each ``seconds`` (real), in every replica, one call at a time."""
    decorate: Callable[[Method], Method] = Timer.decorator(interval=seconds)
    return decorate
