"""The ports that local stacks and tests listen on."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from deploy.local import processes
from deploy.local.processes import StackError, free_ports

TAKE = "import sys; from deploy.local.processes import free_ports; print(*free_ports(8)); input()"


def test_no_two_processes_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(20_000, 20_040)
    take = TAKE.replace(
        "print", f"from deploy.local import processes; processes._PORTS = {few}; print"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", take], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    monkeypatch.setattr(processes, "_PORTS", few)
    mine = free_ports(8)
    given = [int(port) for each in both if each.stdout for port in each.stdout.readline().split()]
    assert len({*given, *mine}) == 24
    for each in both:
        each.communicate("\n")
        assert each.returncode == 0


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        monkeypatch.setattr(processes, "_PORTS", range(number, number + 1))
        with pytest.raises(StackError, match=f"no 1 ports from {number} to {number} are free"):
            free_ports(1)
    assert free_ports(1) == [number]
    with pytest.raises(StackError):
        free_ports(1)
