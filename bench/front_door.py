"""Ten systems at the front door over AMQP, one of which sends nothing but rubbish at full speed.

``python -m bench.front_door`` starts a stack for each rate of BENCH_A_SECOND (200,1000, of the nine
together), each for BENCH_SECONDS (60). It says how long it took from publishing a report to the
answer that it is accepted, which intake sends after its ``case.reported``; and the same without the
mad one. Everything is on one machine: all services, which assign, arm and tell of each case, the
nine, and the mad one, which takes what it gets of the processors.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import amqp

from cli import systems
from cli.client import Client
from cli.stack import find_stack
from deploy.local.stack import Stack
from services.bus.topology import INBOUND
from services.grid.clock import monotonic
from services.grid.events.bindings import STRUCTURED

RESULTS = Path(__file__).parent / "results" / "front_door.json"
NAMES = [f"sane_{number}" for number in range(1, 10)]
QUICK = Path(__file__).parents[1] / "tests" / "end_to_end" / "quick"
_GRID = "46900210421403007"
_LAST_SECONDS = 300.0
_QUIET_SECONDS = 30.0


class Sane:
    """A system that publishes reports at its pace and takes its answers."""

    def __init__(self, name: str, host: str, account: dict[str, str]) -> None:
        self._name = name
        self._connections = [
            amqp.Connection(host, userid=account["user"], password=account["password"])
            for _ in range(2)
        ]
        self._queue = account["replies"]
        self._sent: dict[str, float] = {}
        self.seconds: list[float] = []
        self.rejected = 0

    def run(self, a_second: float, seconds: float) -> None:
        """Publishes for so long, then waits for what is still on its way."""
        for connection in self._connections:
            connection.connect()
        publisher, reader = (connection.channel() for connection in self._connections)
        reader.basic_consume(self._queue, callback=self._answered, no_ack=True)
        taking = threading.Thread(target=self._take, daemon=True)
        taking.start()
        began, number = monotonic(), 0
        while monotonic() - began < seconds:
            while number < (monotonic() - began) * a_second:
                number += 1
                event = self._event()
                message = amqp.Message(json.dumps(event), content_type=STRUCTURED, delivery_mode=2)
                self._sent[event["id"]] = monotonic()
                publisher.basic_publish(message, INBOUND, f"{self._name}.case.report")
            time.sleep(0.005)
        taking.join(_LAST_SECONDS)
        # Who still consumes would get every other answer of the next run.
        for connection in self._connections:
            connection.close()

    @property
    def missing(self) -> int:
        """How many were never answered."""
        return len(self._sent)

    def _event(self) -> dict[str, Any]:
        identity = str(uuid.uuid4())
        return {
            "specversion": "1.0",
            "id": identity,
            "source": self._name,
            "type": "huashi.case.report.v1",
            "data": {
                "reference": identity,
                "division": _GRID,
                "title": "文化广场路灯不亮",
                "category": "facility",
                "urgency": "ordinary",
                "source": "app",
            },
        }

    def _take(self) -> None:
        quiet = monotonic()
        while self._sent or monotonic() - quiet < 2:
            try:
                self._connections[1].drain_events(timeout=1)
            except TimeoutError:
                if monotonic() - quiet > _QUIET_SECONDS:
                    return
            else:
                quiet = monotonic()

    def _answered(self, message: Any) -> None:
        word = message.delivery_info["routing_key"].rpartition(".")[2]
        if word == "status":
            return
        sent = self._sent.pop(json.loads(message.body)["data"]["id"], None)
        if sent is not None:
            self.seconds.append(monotonic() - sent)
            self.rejected += word == "rejected"


def rubbish(host: str, user: str, password: str, name: str) -> None:
    """Publishes without end."""
    message = amqp.Message(b"\xff" * 200, content_type=STRUCTURED, delivery_mode=2)
    while True:
        try:
            with amqp.Connection(host, userid=user, password=password) as connection:
                channel = connection.channel()
                while True:
                    channel.basic_publish(message, INBOUND, f"{name}.case.report")
        except (amqp.exceptions.AMQPError, OSError):
            # The broker let it wait for so long that its connection ended, or still counts those
            # before: it comes again.
            time.sleep(0.5)


def measure(
    host: str, accounts: dict[str, dict[str, str]], a_second: float, seconds: float
) -> dict[str, Any]:
    """One run of the nine."""
    sane = [Sane(name, host, accounts[name]) for name in NAMES]
    threads = [
        threading.Thread(target=each.run, args=(a_second / len(sane), seconds)) for each in sane
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = sorted(value for each in sane for value in each.seconds)
    cuts = statistics.quantiles(took, n=100)
    return {
        "answered": len(took),
        "rejected": sum(each.rejected for each in sane),
        "never_answered": sum(each.missing for each in sane),
        "median_ms": round(cuts[49] * 1000),
        "p99_ms": round(cuts[98] * 1000),
        "longest_ms": round(took[-1] * 1000),
    }


def at(a_second: float, seconds: float) -> list[dict[str, Any]]:
    """The nine alone, and beside the mad one, at one rate."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), {"PROFILES": str(QUICK), "LOG_LEVEL": "warning"})
        about = stack.up()
        try:
            client = Client(find_stack({"RUN_DIR": folder}, Path(folder)))
            body = {"may": ["case.report"], "rate": 200, "open_cases": 1_000_000}
            accounts = {name: systems.add(client, name, body)["amqp"] for name in [*NAMES, "mad"]}
            host = about["amqp"].rpartition("@")[2].rstrip("/")
            time.sleep(6)
            print(f"{a_second:g} a second, alone", file=sys.stderr)
            row = {"a_second": a_second, "beside_rubbish": False}
            rows = [row | measure(host, accounts, a_second, seconds)]
            mad = accounts["mad"]
            arguments = (host, mad["user"], mad["password"], "mad")
            command = [sys.executable, "-m", "bench.front_door", *arguments]
            with subprocess.Popen(command) as process:
                time.sleep(2)
                print(f"{a_second:g} a second, beside rubbish", file=sys.stderr)
                row = {"a_second": a_second, "beside_rubbish": True}
                rows.append(row | measure(host, accounts, a_second, seconds))
                process.kill()
        finally:
            stack.down()
    return rows


def main() -> int:
    """Shows the figures and keeps them."""
    rates = os.environ.get("BENCH_A_SECOND", "200,1000").split(",")
    seconds = float(os.environ.get("BENCH_SECONDS", "60"))
    rows = [row for rate in rates for row in at(float(rate), seconds)]
    print(json.dumps(rows, indent=2))
    RESULTS.write_text(json.dumps({"seconds": seconds, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        rubbish(*sys.argv[1:])
    sys.exit(main())
