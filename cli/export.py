"""``huashi export cases``: recorded cases of a running system, for ``huashi profile whatif``.

A page of cases at a time, each with its timeline; nothing is held but that page. The file has
its name only once it is whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.client import Client
from cli.failures import Exit, Failure
from services.grid.recorded import of_timeline


def cases(client: Client, out: Path, filters: dict[str, str], *, quiet: bool) -> dict[str, int]:
    """Writes the recorded cases of the register; how many ``cases`` and ``lines``.

    :param out: a file, or ``-`` for standard output.
    :param filters: of ``GET /v1/cases``.
    :raises Failure: a service is away, or the file can't be written.
    """
    found = lines = 0
    with _whole(out) as file, _progress(quiet) as told:
        for case in client.cases(**filters):
            now = client.stack.clock.now()
            for line in of_timeline(case, client.timeline(case["id"]), now):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines += 1
            found += 1
            told(found)
    return {"cases": found, "lines": lines}


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file that appears under its name when all of it is written."""
    if str(path) == "-":
        yield sys.stdout
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} can't be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int], None]]:
    """How many so far, on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _found: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed} cases"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda found: progress.update(task, completed=found)
