"""Sends malformed inputs through both doors of a stack of its own, and says what came of it.

python -m tests.malformed --inputs 1000000    over HTTP and AMQP, each as fast as it can
python -m tests.malformed --seed 4711         the same ones again, in the same order at each door
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cli import systems
from cli.client import Client
from cli.stack import find_stack
from deploy.local.stack import Stack
from services.intake.systems import TYPES
from tests.malformed.doors import OverAmqp, OverHttp, Pot, Services, Tell, Unanswered

QUICK = Path(__file__).parents[1] / "end_to_end" / "quick"
GRID = "46900210421403007"
BODY: dict[str, Any] = {
    "may": [*TYPES],
    "unit": "centre",
    "rate": 100_000,
    "open_cases": 1_000_000,
}


def send(about: dict[str, Any], client: Client, inputs: int, seed: int, bars: Progress) -> str:
    """Sends the inputs through both doors at once; returns what came of it.

    :raises Unanswered: an input was not answered as it must be, or a service is not well.
    """
    services = Services(about)
    added = {name: systems.add(client, name, BODY) for name in ("poster", "publisher")}
    over_http = OverHttp(about, "poster", added["poster"]["key"], GRID)
    over_amqp = OverAmqp(about, "publisher", added["publisher"]["amqp"], GRID)
    with ThreadPoolExecutor(2) as pool:
        doors = {"HTTP": over_http, "AMQP": over_amqp}
        pot = Pot(inputs)
        whole = bars.add_task("inputs", total=inputs)
        running = []
        for number, (name, door) in enumerate(doors.items()):
            bar = bars.add_task(f"over {name}", total=None)

            def tell(done: int, bar: TaskID = bar) -> None:
                bars.advance(whole, done)
                bars.advance(bar, done)

            running.append(pool.submit(through, door, pot, seed + number, tell))
        for each in running:
            each.result()
    services.must_be_well()
    return "\n".join(
        f"{name}: {pot.taken[name]} inputs, {door.good} good reports accepted, "
        f"{dict(sorted(door.answers.items()))}"
        for name, door in doors.items()
    )


def through(door: OverHttp | OverAmqp, pot: Pot, seed: int, tell: Tell) -> None:
    """Sends what the pot has through a door; if that goes wrong, the other one ends soon, too.

    :raises Unanswered: an input was not answered as it must be.
    """
    try:
        door.send(pot, seed, tell)
    except BaseException:
        pot.spill()
        raise


def main() -> int:
    """Reads the arguments, starts a stack, sends."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.malformed")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    given = parser.parse_args()
    console = Console()
    console.print(f"{given.inputs} inputs from seed {given.seed}")
    columns = (
        *(TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"), BarColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), {"PROFILES": str(QUICK), "LOG_LEVEL": "error"})
        try:
            about = stack.up()
            client = Client(find_stack({"RUN_DIR": folder}, Path(folder)))
            with Progress(*columns, console=console) as bars:
                console.print(send(about, client, given.inputs, given.seed, bars))
        except Unanswered as error:
            console.print(f"[red]seed {given.seed}:[/red] {error}", markup=True)
            return 1
        finally:
            stack.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
