"""Events a second through a service's step and our publisher, beside the plain way, in one run.

``python -m bench.throughput`` starts a broker and a database of its own, measures each way in
a process of its own, in turns, and writes the medians to ``bench/results/throughput.json``.
The plain way is nameko's own ``event_handler`` with one guarded write and one confirmed
publish for each message.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.servers import servers

EVENTS = int(os.environ.get("BENCH_EVENTS", "20000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
# The plain way is slow: a part of the events is enough to know its rate.
PLAIN = max(200, EVENTS // 5)
LEVEL = "household"
RESULTS = Path(__file__).parent / "results" / "throughput.json"
WAYS = {
    "step": EVENTS,
    "plain_step": PLAIN,
    "publisher": EVENTS,
    "plain_publisher": PLAIN,
}
LABELS = {
    "step": "dispatch: open an entry, assign, publish",
    "plain_step": "nameko event_handler, a write and a confirm each",
    "publisher": "ConfirmingPublisher",
    "plain_publisher": "nameko publisher, a confirm each",
}


def main() -> int:
    """Measures everything and shows a table; returns the exit code."""
    console = Console()
    with servers(LEVEL) as (amqp, mongodb):
        rates = _measure(amqp, mongodb, console)
    result = {
        "events": WAYS,
        "rounds": ROUNDS,
        "per_second": {way: [round(rate) for rate in found] for way, found in rates.items()},
        "median": {way: round(statistics.median(found)) for way, found in rates.items()},
        "ratio": {
            "step": _ratio(rates, "step"),
            "publisher": _ratio(rates, "publisher"),
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("way", "events/s, median", "lowest", "highest", "times the plain way")
    for way, label in LABELS.items():
        found = rates[way]
        times = result["ratio"].get(way)
        row = (statistics.median(found), min(found), max(found))
        table.add_row(label, *(f"{rate:,.0f}" for rate in row), f"{times:.1f}" if times else "")
    console.print(table)
    return 0


def _ratio(rates: dict[str, list[float]], way: str) -> float:
    return round(statistics.median(rates[way]) / statistics.median(rates[f"plain_{way}"]), 1)


def _measure(amqp: str, mongodb: str, console: Console) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with Progress(console=console) as progress:
        task = progress.add_task("measuring", total=ROUNDS * len(WAYS))
        for round_ in range(ROUNDS):
            for way, count in WAYS.items():
                command = [sys.executable, "-m", "bench.ways", way, str(count), str(round_)]
                environment: dict[str, Any] = {"AMQP_URI": amqp, "MONGODB_URI": mongodb}
                done = subprocess.run(
                    command,
                    env={**os.environ, **environment},
                    stdout=subprocess.PIPE,
                    check=True,
                    timeout=600,
                )
                rates[way].append(float(done.stdout.split()[-1]))
                progress.advance(task)
    return rates


if __name__ == "__main__":
    sys.exit(main())
