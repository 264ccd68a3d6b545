"""Processes and ports of a run folder: which are ours, and which ports are free."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from services.grid.clock import monotonic

MARK = "HUASHI_RUN_DIR"
"""Every process of a stack carries this variable with the folder it belongs to."""

_GRACE_SECONDS = 15.0


class StackError(RuntimeError):
    """The stack can't do what was asked; the message says why and what to do."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            found.append(sock.getsockname()[1])
        return found


def wait_until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Returns when ``condition`` holds.

    :raises StackError: it did not within ``seconds``; ``what`` says what was waited for.
    """
    until = monotonic() + seconds
    while not condition():
        if monotonic() > until:
            raise StackError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


def of_folder(folder: Path) -> list[psutil.Process]:
    """The running processes that carry the mark of this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    """Asks these processes to end, and ends those that do not within some seconds."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)
