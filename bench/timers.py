"""Other ways to be called at a time, on the same broker: Celery's countdown, and a queue's TTL.

``python -m bench.timers celery|ttl COUNT SECONDS`` lets ``COUNT`` timers be due over ``SECONDS``
and prints how late they were, as JSON.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import amqp
from celery import Celery
from kombu.connection import Connection

AMQP = os.environ.get("AMQP_URI", "")
_TTL_SECONDS = 5

app = Celery("bench", broker=AMQP)
app.conf.task_default_queue = "bench.celery"
app.conf.task_ignore_result = True
app.conf.worker_enable_remote_control = False


@app.task(name="due")
def due(at: float) -> None:
    """What Celery calls; it notes by how many seconds it is late."""
    with Path(os.environ["BENCH_LATE"]).open("a") as file:
        file.write(f"{time.time() - at}\n")


def celery(count: int, seconds: float) -> list[float]:
    """Tasks with an ETA, sent before the first is due; one worker with two processes."""
    with tempfile.TemporaryDirectory() as folder:
        late = Path(folder) / "late"
        late.touch()
        command = [sys.executable, "-m", "celery", "-A", "bench.timers", "worker"]
        worker = subprocess.Popen(
            [*command, "-c", "2", "-l", "ERROR", "--without-gossip", "--without-mingle"],
            env={**os.environ, "BENCH_LATE": str(late)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            first = time.time() + 10 + count / 500
            for number in range(count):
                at = first + number * seconds / count
                due.apply_async((at,), eta=datetime.fromtimestamp(at, UTC))
            until = first + seconds + 120
            while len(late.read_text().splitlines()) < count and time.time() < until:
                time.sleep(1)
            return [float(line) for line in late.read_text().splitlines()]
        finally:
            worker.terminate()
            worker.wait(30)


def ttl(count: int, seconds: float) -> list[float]:
    """Messages that a queue lets die after five seconds, into the queue that is read."""
    late: list[float] = []
    arguments = {
        "x-message-ttl": _TTL_SECONDS * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "bench.dead",
    }
    with Connection(AMQP) as connection:
        channel: Any = connection.default_channel
        channel.queue_declare("bench.dead", durable=True, auto_delete=False)
        channel.queue_declare("bench.ttl", durable=True, auto_delete=False, arguments=arguments)

    def on_message(message: Any) -> None:
        late.append(time.time() - float(message.body) - _TTL_SECONDS)

    def send() -> None:
        with Connection(AMQP) as connection:
            channel: Any = connection.default_channel
            started = time.time()
            for number in range(count):
                pause = started + number * seconds / count - time.time()
                if pause > 0:
                    time.sleep(pause)
                body = amqp.Message(f"{time.time()}", delivery_mode=2)
                channel.basic_publish(body, "", "bench.ttl")

    sender = threading.Thread(target=send, daemon=True)
    with Connection(AMQP) as connection:
        channel = connection.default_channel
        channel.basic_consume("bench.dead", no_ack=True, callback=on_message)
        sender.start()
        until = time.monotonic() + seconds + 60
        while len(late) < count and time.monotonic() < until:
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                continue
    return late


def summary(late: list[float]) -> dict[str, int]:
    """Median, 99th percentile and greatest lateness in milliseconds, and how many there were."""
    ordered = sorted(max(0.0, each) for each in late)
    return {
        "median ms": round(1000 * statistics.median(ordered)),
        "p99 ms": round(1000 * ordered[int(len(ordered) * 0.99)]),
        "most ms": round(1000 * ordered[-1]),
        "fired": len(ordered),
    }


if __name__ == "__main__":
    ways = {"celery": celery, "ttl": ttl}
    print(json.dumps(summary(ways[sys.argv[1]](int(sys.argv[2]), float(sys.argv[3])))))
