"""Processes and ports of a run folder: which are ours, and which ports are free."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
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


# Below those that the kernel gives to outgoing connections.
_PORTS = range(10_000, 32_768)
_claims: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now, all different.

    They are this process's own until it ends: no other call of this function, here or in
    another process of this machine, gives one of them again.

    :raises StackError: there are not so many.
    """
    free = filter(_claim, random.sample(_PORTS, len(_PORTS)))
    found = list(itertools.islice(free, count))
    if len(found) < count:
        raise StackError(f"no {count} ports from {_PORTS[0]} to {_PORTS[-1]} are free: end others")
    return found


def _claim(port: int) -> bool:
    """Whether the port is free, and this process's from now on."""
    # A name in the kernel, which is gone with the process that holds it.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0huashi-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def listening(folder: Path) -> set[int]:
    """The TCP ports that the processes of this folder listen on."""
    found = set()
    for process in of_folder(folder):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.port)
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
