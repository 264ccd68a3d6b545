"""Runs one service as a process: ``python -m services.bus.run intake``.

Exit codes: 0 stopped as asked (SIGTERM, SIGINT), 1 the service failed or did not stop within
STOP_SECONDS (its supervisor starts it again, and redelivery brings back what it had in
hand), 2 the configuration is wrong (starting again does not help).
"""

from __future__ import annotations

# ruff: noqa: E402 - what is imported below must see the patched standard library
import warnings

# It announces its retirement at each start; nameko stands on it.
warnings.filterwarnings("ignore", message="\\s*Eventlet is deprecated")

import eventlet

eventlet.monkey_patch()

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from nameko.runners import ServiceRunner

from services.bus import logs, metrics, web
from services.bus.config import SERVICES, Config, ConfigError

_log = logs.get(__name__)

STOPPED, FAILED, MISCONFIGURED = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Runs the service that ``arguments`` name until it is told to stop."""
    if len(arguments) != 1:
        sys.stderr.write(f"say which service: python -m services.bus.run {'|'.join(SERVICES)}\n")
        return MISCONFIGURED
    try:
        config = Config.from_environment(arguments[0], os.environ)
    except ConfigError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return MISCONFIGURED
    desk = {"desk": config.level} if config.level else {}
    logs.configure(config.log_level, service=config.service, **desk)
    module = importlib.import_module(f"services.{config.service}.service")
    return serve(module.Service, config)


def serve(service: type, config: Config) -> int:
    """Runs one nameko service class; returns the exit code of the process."""
    spare_the_collector()
    metrics.PROCESS_INFO.labels(config.service, config.level).set(1)
    process = _Process(service, config)
    # A signal handler can't switch greenlets; its byte on this socket wakes one that can.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    eventlet.spawn_n(process.run)
    eventlet.spawn_n(process.stop_on_signal, reader)
    return process.wait()


def spare_the_collector() -> None:
    """Lets Python look for garbage cycles less often.

    A step makes thousands of small objects and hardly a cycle: by default the search was a
    sixth of a service's work (``bench/``).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Process:
    """A service from its start to its exit code."""

    def __init__(self, service: type, config: Config) -> None:
        self._limit = config.stop_seconds
        self._runner = ServiceRunner(web.nameko_config(config))
        self._runner.add_service(service)
        self._started = False
        self._code = eventlet.event.Event()

    def wait(self) -> int:
        """Blocks until the exit code is known."""
        code: int = self._code.wait()
        return code

    def run(self) -> None:
        """Starts the service and waits for its end."""
        try:
            self._runner.start()
            self._started = True
            _log.info("started")
            self._runner.wait()
        except Exception:  # noqa: BLE001 - whatever it was, it ends the process with its code
            _log.exception("the service failed")
            self._end(FAILED)
        else:
            _log.info("stopped")
            self._end(STOPPED)

    def stop_on_signal(self, signals: socket.socket) -> None:
        """The first signal stops gently, the second at once."""
        signals.recv(1)
        _log.info("stopping")
        eventlet.spawn_n(self._stop)
        signals.recv(1)
        self._end(FAILED)

    def _stop(self) -> None:
        # Before it has started there is nothing in hand that redelivery does not bring back.
        if not self._started:
            self._end(STOPPED)
            return
        try:
            with eventlet.Timeout(self._limit):
                self._runner.stop()
        except eventlet.Timeout:
            _log.error("did not stop in time", seconds=self._limit)
            self._end(FAILED)
        except Exception:  # noqa: BLE001 - the same
            _log.exception("failed while it stopped")
            self._end(FAILED)

    def _end(self, code: int) -> None:
        if not self._code.ready():
            self._code.send(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
