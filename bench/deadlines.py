"""How late deadlines fire: with up to a million armed, in a storm, and with two replicas.

``python -m bench.deadlines`` starts a broker and a database of its own, fills the custodian's
collection, runs the real service (``services.bus.run escalation``) as processes of their own, and
writes what it finds to ``bench/results/deadlines.json``. Lateness is ``fired_at - due``, as the
case's history keeps it; ``fired_at`` is the moment of the decision, and the write that makes it
true follows within the step.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import amqp
import httpx
import psutil
from kombu.connection import Connection
from pymongo.collection import Collection
from rich.console import Console
from rich.table import Table

from bench.county import ATLAS, fill_directory, report
from bench.servers import servers
from bench.timers import summary
from deploy.local.processes import end, free_ports, wait_until
from services.bus import topology
from services.bus.fold import Record
from services.bus.store import MongoStore, connect
from services.escalation import model
from services.escalation.store import Custody
from services.grid.clock import Instant, ScaledClock, plus, seconds_between

RESULTS = Path(__file__).parent / "results" / "deadlines.json"
ARMED = [int(text) for text in os.environ.get("BENCH_ARMED", "10000,100000,1000000").split(",")]
A_SECOND = int(os.environ.get("BENCH_A_SECOND", "1000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "60"))
STORM = int(os.environ.get("BENCH_STORM", "100000"))
CLOCK = ScaledClock()
LEVELS = ("household", "group", "village", "township")
_TWO_HOURS = 2 * 3600.0
_CHUNK = 1000

Json = dict[str, Any]


def main() -> int:
    """Measures everything and shows a table; returns the exit code."""
    console = Console()
    rows: list[Json] = []
    with servers(*LEVELS) as (amqp_uri, mongodb):
        bench = _Bench(amqp_uri, mongodb, console)
        rows.append(bench.arming())
        rows += [bench.steady(armed, replicas=1) for armed in ARMED]
        rows.append(bench.steady(ARMED[-1], replicas=2))
        rows += [bench.storm(replicas) for replicas in (1, 2)]
        rows += [bench.other(way) for way in ("celery", "ttl")]
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"a_second": A_SECOND, "seconds": SECONDS, "storm": STORM, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names)
    for row in rows:
        table.add_row(*(f"{row.get(name, '')}" for name in names))
    console.print(table)
    return 0


class _Bench:
    def __init__(self, amqp_uri: str, mongodb: str, console: Console) -> None:
        self._amqp = amqp_uri
        self._mongodb = mongodb
        self._console = console
        self._database = connect(mongodb, "bench")
        self._custody: Collection[Json] = self._database["custody"]
        fill_directory(MongoStore(self._database["directory_escalation"]))

    def arming(self) -> Json:
        """Cases armed a second, from the queue to the write."""
        count = 20_000
        self._clear()
        self._console.print(f"arming {count} cases from the queue")
        queue = topology.instance("escalation").queues["events"]
        with Connection(self._amqp) as connection:
            channel: Any = connection.default_channel
            for _ in range(count):
                message = amqp.Message(report(CLOCK.now()).body(), delivery_mode=2)
                channel.basic_publish(message, "", queue)
        with self._running(1):
            wait_until("the first", lambda: self._custody.estimated_document_count() > 0, 60)
            before, started = self._custody.estimated_document_count(), time.monotonic()
            wait_until("all armed", lambda: self._custody.estimated_document_count() >= count, 120)
            rate = (count - before) / (time.monotonic() - started)
        return {"what": "arming", "a second": round(rate)}

    def steady(self, armed: int, replicas: int) -> Json:
        """A second's worth due in each second, beside ``armed`` that are due much later."""
        self._clear()
        self._console.print(f"{armed} armed, {replicas} replica(s)")
        self._arm_idle(armed)
        first = plus(CLOCK.now(), 30 + A_SECOND * SECONDS / 4000)
        dues = [plus(first, number / A_SECOND) for number in range(A_SECOND * SECONDS)]
        self._arm(dues)
        with self._running(replicas) as processes:
            wait_until("the last", self._none_left(dues[-1]), 120 + 2 * SECONDS)
            memory = max(process.memory_info().rss for process in processes) >> 20
            time.sleep(3)
        return {
            "what": "steady",
            "armed": armed,
            "replicas": replicas,
            **self._lateness(dues[0]),
            "MiB": memory,
            "events": self._published(len(dues)),
        }

    def storm(self, replicas: int) -> Json:
        """All overdue at the start, and some that come due meanwhile."""
        self._clear()
        self._console.print(f"a storm of {STORM}, {replicas} replica(s)")
        yesterday = plus(CLOCK.now(), -86400.0)
        self._arm([plus(yesterday, number / 1000) for number in range(STORM)])
        begins = plus(CLOCK.now(), 15)
        live = [plus(begins, number / 50) for number in range(50 * 20)]
        self._arm(live)
        with self._running(replicas):
            # The storm alone: the live ones take their own time.
            storm = plus(yesterday, STORM / 1000)
            wait_until("the first", lambda: self._left(storm) < STORM, 60)
            left, started = self._left(storm), time.monotonic()
            wait_until("the storm is over", self._none_left(storm), 600)
            rate = left / (time.monotonic() - started)
            wait_until("the live ones", self._none_left(live[-1]), 120)
            time.sleep(3)
        return {
            "what": "storm",
            "armed": STORM,
            "replicas": replicas,
            "a second": round(rate),
            **self._lateness(begins),
            "events": self._published(STORM + len(live)),
        }

    def other(self, way: str) -> Json:
        """The same load on another kind of timer; see :mod:`bench.timers`."""
        self._clear()
        seconds = min(20, SECONDS)
        count = A_SECOND * seconds
        self._console.print(f"{way}: {count} timers due over {seconds} s")
        command = [sys.executable, "-m", "bench.timers", way, str(count), str(seconds)]
        environment = {**os.environ, "AMQP_URI": self._amqp}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        return {"what": way, "armed": count, **json.loads(done.stdout)}

    def _clear(self) -> None:
        self._custody.drop()
        self._database["custodians"].drop()
        Custody(self._custody).ensure_indexes()
        with Connection(self._amqp) as connection:
            channel: Any = connection.default_channel
            for owner in topology.instances(LEVELS):
                for queue in owner.queues.values():
                    channel.queue_purge(queue)

    def _arm_idle(self, count: int) -> None:
        """Copies of one case that is due in a year; what a copy says of its case is its own."""
        (sample,) = _records([plus(CLOCK.now(), 365 * 86400.0)])
        numbers = iter(range(count))
        while chunk := list(islice(numbers, _CHUNK)):
            self._custody.insert_many(
                [
                    {
                        "_id": f"idle-{number}",
                        "revision": 1,
                        "document": {
                            **sample["document"],
                            "case": f"idle-{number}",
                            "shard": model.shard(f"idle-{number}"),
                        },
                    }
                    for number in chunk
                ],
                ordered=False,
            )

    def _arm(self, dues: list[Instant]) -> None:
        records = _records(dues)
        while chunk := list(islice(records, _CHUNK)):
            self._custody.insert_many(chunk, ordered=False)

    @contextmanager
    def _running(self, replicas: int) -> Iterator[list[psutil.Process]]:
        started = []
        try:
            for _ in range(replicas):
                port = free_ports(1)[0]
                environment = {
                    "AMQP_URI": self._amqp,
                    "MONGODB_URI": self._mongodb,
                    "HTTP_BIND": f"127.0.0.1:{port}",
                    "TOKEN_KEY": secrets.token_hex(32),
                    "LOG_LEVEL": "warning",
                }
                command = [sys.executable, "-m", "services.bus.run", "escalation"]
                process = subprocess.Popen(
                    command, env={**os.environ, **environment}, start_new_session=True
                )
                started.append(psutil.Process(process.pid))
                url = f"http://127.0.0.1:{port}/readyz"
                wait_until("a custodian", lambda url=url: _ready(url), 60)
            yield started
        finally:
            end(started)

    def _left(self, due: Instant) -> int:
        """How many cases have something due by then."""
        # In the index alone: to read a million documents would disturb what is measured.
        return self._custody.count_documents({"document.next_due": {"$lte": due}})

    def _none_left(self, due: Instant) -> Callable[[], bool]:
        pause = 0.0

        def done() -> bool:
            nonlocal pause
            time.sleep(pause)
            left = self._left(due)
            pause = min(5.0, left / 5000)
            return left == 0

        return done

    def _lateness(self, since: Instant) -> Json:
        late = [
            seconds_between(item["deadline"]["due"], item["fired_at"])
            for raw in self._custody.find(
                {"document.history.0.deadline.due": {"$gte": since}},
                {"document.history.deadline.due": 1, "document.history.fired_at": 1},
            )
            for item in raw["document"]["history"][:1]
        ]
        return summary(late)

    def _published(self, fired: int) -> str:
        """Each fired case gives three events; more would be one that was doubled."""
        queue = topology.instance("intake").queues["events"]
        with Connection(self._amqp) as connection:
            channel: Any = connection.default_channel
            count = channel.queue_declare(queue, passive=True).message_count
        return f"{count} of {3 * fired}"


def _records(dues: list[Instant]) -> Iterator[Json]:
    """Custody of cases whose households have until then to acknowledge, as the service keeps it."""
    for due in dues:
        started = plus(due, -_TWO_HOURS)
        event = report(started)
        document = model.work(event, ATLAS, started).change(Record(event.subject)).document
        yield {"_id": event.subject, "revision": 1, "document": document}


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main())
