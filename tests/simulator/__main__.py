"""Plays histories from seeds on all processors, and stops at the first that goes wrong.

python -m tests.simulator --cases 1000000    as many cases as that, live on the terminal
python -m tests.simulator --seed 4711        one history again, and what it comes to
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count, islice
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.simulator.history import Broken, of_seed, play
from tests.simulator.quiet import quiet
from tests.simulator.shrinking import shortest

BATCH = 100
"""Histories that a process plays before it says how far it is: a second's worth."""
_SEEDS = 2**40


class Played(NamedTuple):
    """What came of a batch of seeds; ``broken`` is the first that goes wrong."""

    histories: int
    cases: int
    broken: int | None


def batch(seeds: range) -> Played:
    """Plays the histories of these seeds, up to the first that goes wrong."""
    cases = 0
    for done, seed in enumerate(seeds):
        try:
            cases += play(of_seed(seed)).cases
        except Broken:
            return Played(done, cases, seed)
    return Played(len(seeds), cases, None)


def played(first: int, workers: int) -> Iterator[Played]:
    """Batches without an end, as they are done, from a first seed on."""
    with ProcessPoolExecutor(workers, initializer=quiet) as pool:
        batches = (range(seed, seed + BATCH) for seed in count(first, BATCH))
        waiting: set[Future[Played]] = set()
        try:
            while True:
                # Two for each process, so that none waits for the next.
                more = islice(batches, 2 * workers - len(waiting))
                waiting |= {pool.submit(batch, seeds) for seeds in more}
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(cancel_futures=True)


def simulate(console: Console, cases: int, first: int) -> int | None:
    """Plays at least so many cases; returns the first seed that goes wrong, if one does."""
    started = time.monotonic()
    workers = os.cpu_count() or 1
    histories, done, broken = 0, 0, None
    console.print(f"histories from seed {first} on, in {workers} processes")
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} cases"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.0f} histories/s, {task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=cases, rate=0.0, failures=0)
        for result in played(first, workers):
            histories, done = histories + result.histories, done + result.cases
            broken = result.broken
            rate = histories / (time.monotonic() - started)
            failures = int(broken is not None)
            progress.update(task, completed=done, rate=rate, failures=failures)
            if failures or done >= cases:
                break
    seconds = time.monotonic() - started
    console.print(
        f"{done:,} cases in {histories:,} histories, {seconds:.0f} s, "
        f"{histories / seconds:.0f} histories a second"
    )
    return broken


def tell(console: Console, seed: int) -> bool:
    """Plays one history, tells it, and what it comes to if it goes wrong; whether it holds."""
    try:
        words = play(of_seed(seed)).words
    except Broken as broken:
        console.print(f"seed {seed}: {broken}", markup=False)
        console.print("\nmade shorter:", shortest(of_seed(seed)), markup=False)
        console.print(f"\nagain: {sys.executable} -m tests.simulator --seed {seed}", markup=False)
        return False
    console.print(f"seed {seed}: all holds of\n", "\n".join(words), markup=False)
    return True


def main() -> int:
    """The exit code is 1 if a history goes wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", type=int, default=1_000_000, help="play at least so many")
    parser.add_argument("--from", dest="first", type=int, help="the first seed (default: any)")
    parser.add_argument("--seed", type=int, help="play just this history")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    quiet()
    if given.seed is not None:
        return 0 if tell(console, given.seed) else 1
    first = secrets.randbelow(_SEEDS) if given.first is None else given.first
    broken = simulate(console, given.cases, first)
    if broken is None:
        return 0
    tell(console, broken)
    return 1


if __name__ == "__main__":
    sys.exit(main())
